import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { defineConfig, type Plugin } from 'vite';

const WASM = 'node_modules/@litertjs/core/wasm';
/** Of LiteRT's builds: for browsers without relaxed SIMD, for one thread, for several. */
const WASM_BUILDS = ['compat_internal', 'internal', 'threaded_internal'];

/** With the version in its name: another one has another address, and is not taken for this. */
const LITERT = JSON.parse(readFileSync('node_modules/@litertjs/core/package.json', 'utf8')).version;
const WASM_FOLDER = `wasm/${LITERT}/`;

/** What is loaded only where it is used. */
const LATER = /^wasm\/|\.txt$|video_export/;

export default defineConfig({
  define: {
    RUNTIME: JSON.stringify({
      folder: WASM_FOLDER,
      bytes: Object.fromEntries(
        WASM_BUILDS.map((build) => `litert_wasm_${build}.wasm`).map((file) => [
          file,
          statSync(join(WASM, file)).size,
        ]),
      ),
    }),
  },
  base: './', // the folder may stand anywhere on a host
  build: {
    outDir: '../src/deeplab/web',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: { polyfill: false }, // it would be an inline script
    assetsInlineLimit: 0, // data: addresses are not in the content security policy
    rolldownOptions: {
      input: { index: 'index.html', sw: 'src/sw.ts' },
      output: {
        entryFileNames: ({ name }) => (name === 'sw' ? 'sw.js' : 'assets/[name]-[hash].js'),
      },
    },
  },
  // LiteRT loads its own script with importScripts, which module workers do not have.
  worker: { format: 'iife' },
  plugins: [files(), shell()],
});

/** Put LiteRT's WebAssembly and the example photo beside the page. */
function files(): Plugin {
  return {
    name: 'deeplab-files',
    apply: 'build',
    generateBundle() {
      const emit = (fileName: string, source: string) =>
        this.emitFile({ type: 'asset', fileName, source: readFileSync(source) });
      for (const build of WASM_BUILDS) {
        for (const ending of ['js', 'wasm']) {
          const file = `litert_wasm_${build}.${ending}`;
          emit(WASM_FOLDER + file, join(WASM, file));
        }
      }
      emit('example.jpg', '../examples/photos/cat.jpg');
      emit('help.txt', '../docs/browser.md');
      emit('LICENSE.mediabunny.txt', 'node_modules/mediabunny/LICENSE');
      emit('LICENSE.litert.txt', '../LICENSE'); // LiteRT is under Apache-2.0 too
    },
  };
}

/** Tell the service worker which files are the page, and under which version it keeps them. */
function shell(): Plugin {
  const PUBLIC = [
    'manifest.webmanifest',
    'icon.svg',
    'icon-180.png',
    'icon-192.png',
    'icon-512.png',
  ];
  return {
    name: 'deeplab-shell',
    apply: 'build',
    enforce: 'post',
    generateBundle(_, bundle) {
      const worker = bundle['sw.js'];
      if (worker?.type !== 'chunk') throw new Error('sw.js is not in the bundle');
      const hash = createHash('sha256');
      const names: string[] = [];
      for (const [name, file] of Object.entries(bundle).sort()) {
        hash.update(name).update(file.type === 'chunk' ? file.code : file.source);
        const isShell = name !== 'sw.js' && !LATER.test(name);
        if (isShell) names.push(name);
      }
      for (const name of PUBLIC) hash.update(readFileSync(join('public', name)));
      const version = hash.digest('hex').slice(0, 16);
      const value = JSON.stringify({ files: [...names, ...PUBLIC], version });
      worker.code = `const SHELL = ${value};\n${worker.code}`;
    },
  };
}
