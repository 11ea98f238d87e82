/**
 * The service worker: what was loaded once is there offline, and every answer carries the headers
 * that let a page use several threads (they isolate it from other origins).
 */

/** The page's own files and their hash, put in by the build. */
declare const SHELL: { files: string[]; version: string };

const worker = self as unknown as ServiceWorkerGlobal;
const scope = worker.registration.scope;
const cacheName = `deeplab ${scope} ${SHELL.version}`;

worker.addEventListener('install', (event) => {
  event.waitUntil(keepShell().then(() => worker.skipWaiting()));
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(dropOldCaches().then(() => worker.clients.claim()));
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return;
  const path = request.url.slice(scope.length).replace(/[?#].*/, '');
  if (path === 'models.json') event.respondWith(newest(request).then(isolate));
  else if (path === '' || SHELL.files.includes(path) || /^(wasm|models)\//.test(path)) {
    event.respondWith(kept(request).then(isolate));
  }
});

async function keepShell(): Promise<void> {
  const cache = await caches.open(cacheName);
  const files = ['', ...SHELL.files].map((file) => new Request(scope + file, { cache: 'reload' }));
  await cache.addAll(files);
}

async function dropOldCaches(): Promise<void> {
  const mine = (await caches.keys()).filter((name) => name.startsWith(`deeplab ${scope} `));
  await Promise.all(mine.filter((name) => name !== cacheName).map((name) => caches.delete(name)));
}

/** The kept answer, else the host's, which is kept. */
async function kept(request: Request): Promise<Response> {
  const cache = await caches.open(cacheName);
  return (await cache.match(request, { ignoreVary: true })) ?? (await load(request, cache));
}

/** The host's answer, else the kept one. */
async function newest(request: Request): Promise<Response> {
  const cache = await caches.open(cacheName);
  try {
    return await load(request, cache);
  } catch (error) {
    const answer = await cache.match(request, { ignoreVary: true });
    if (answer) return answer;
    throw error;
  }
}

async function load(request: Request, cache: Cache): Promise<Response> {
  const answer = await fetch(request);
  if (answer.status !== 200) return answer;
  await cache.delete(request, { ignoreSearch: true }); // an older model of the same name
  await cache.put(request, answer.clone());
  return answer;
}

function isolate(answer: Response): Response {
  const headers = new Headers(answer.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  headers.set('Cross-Origin-Resource-Policy', 'same-origin');
  const { status, statusText } = answer;
  return new Response(answer.body, { status, statusText, headers });
}

/** The part of the service worker's world that is used here; TypeScript keeps it in a library of
 * its own, which contradicts the page's. */
interface ServiceWorkerGlobal {
  registration: { scope: string };
  clients: { claim: () => Promise<void> };
  skipWaiting: () => Promise<void>;
  addEventListener(
    kind: 'install' | 'activate' | 'fetch',
    listener: (event: {
      request: Request;
      waitUntil: (work: Promise<unknown>) => void;
      respondWith: (answer: Promise<Response>) => void;
    }) => void,
  ): void;
}

export {};
