/**
 * The service worker: what was loaded once is there offline, and every answer carries the headers
 * that let a page use several threads (they isolate it from other origins).
 *
 * A new version waits until somebody takes it, and the files of an old one stay until its last page
 * is closed: every page holds a lock with the address of its own script, which only its own version
 * has. Runtime and models, whose addresses tell their content, are kept for all versions together.
 */

/** The page's own files and their hash, put in by the build. */
declare const SHELL: { files: string[]; version: string };

const worker = self as unknown as ServiceWorkerGlobal;
const scope = worker.registration.scope;
const prefix = `deeplab ${scope} `;
const shellName = prefix + SHELL.version;
const largeName = `${prefix}large`;

worker.addEventListener('install', (event) => event.waitUntil(keepShell()));

worker.addEventListener('activate', (event) => {
  event.waitUntil(dropOldCaches().then(() => worker.clients.claim()));
});

worker.addEventListener('message', (event) => {
  if (event.data === 'take over') void worker.skipWaiting();
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return;
  const path = request.url.slice(scope.length).replace(/[?#].*/, '');
  if (path === 'models.json') event.respondWith(newest(request).then(isolate));
  else if (/^(wasm|models)\//.test(path)) {
    event.respondWith(large(request, path).then(isolate));
  } else if (path === '' || SHELL.files.includes(path)) {
    if (path === '') event.waitUntil(dropOldCaches());
    event.respondWith(ofShell(request).then(isolate));
  } else if (path.startsWith('assets/')) {
    event.respondWith(ofAnyShell(request).then(isolate));
  }
});

async function keepShell(): Promise<void> {
  const cache = await caches.open(shellName);
  const files = ['', ...SHELL.files].map((file) => new Request(scope + file, { cache: 'reload' }));
  await cache.addAll(files);
}

/** Drop the files of versions of which no page is open. */
async function dropOldCaches(): Promise<void> {
  const { held = [] } = (await worker.navigator.locks?.query()) ?? {};
  const names = (await caches.keys()).filter((name) => name.startsWith(prefix));
  for (const name of names) {
    if (name === shellName || name === largeName) continue;
    const cache = await caches.open(name);
    const uses = await Promise.all(
      held.map(async (lock) => lock.name?.startsWith(scope) && (await cache.match(lock.name))),
    );
    if (!uses.some(Boolean)) await caches.delete(name);
  }
}

async function ofShell(request: Request): Promise<Response> {
  const cache = await caches.open(shellName);
  return (await cache.match(request, OPTIONS)) ?? load(request, cache);
}

/** A file of a page that is older than this worker, or one that is loaded only when it is used. */
async function ofAnyShell(request: Request): Promise<Response> {
  return (await caches.match(request, OPTIONS)) ?? load(request, await caches.open(shellName));
}

/** The kept answer, else the host's, which is kept. */
async function large(request: Request, path: string): Promise<Response> {
  const cache = await caches.open(largeName);
  const kept = await cache.match(request, OPTIONS);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.status !== 200) return answer;
  // Of a model only the newest file is kept.
  if (path.startsWith('models/')) await cache.delete(request, { ignoreSearch: true });
  await cache.put(request, answer.clone()).catch(() => {}); // the disk may be full
  return answer;
}

/** The host's answer, else the kept one. */
async function newest(request: Request): Promise<Response> {
  const cache = await caches.open(largeName);
  try {
    return await load(request, cache);
  } catch (error) {
    const answer = await cache.match(request, OPTIONS);
    if (answer) return answer;
    throw error;
  }
}

async function load(request: Request, cache: Cache): Promise<Response> {
  const answer = await fetch(request);
  if (answer.status === 200) await cache.put(request, answer.clone()).catch(() => {});
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

const OPTIONS = { ignoreVary: true };

/** The part of the service worker's world that is used here; TypeScript keeps it in a library of
 * its own, which contradicts the page's. */
interface ServiceWorkerGlobal {
  registration: { scope: string };
  navigator: Navigator;
  clients: { claim: () => Promise<void> };
  skipWaiting: () => Promise<void>;
  addEventListener(
    kind: 'install' | 'activate' | 'fetch' | 'message',
    listener: (event: {
      request: Request;
      data: unknown;
      waitUntil: (work: Promise<unknown>) => void;
      respondWith: (answer: Promise<Response>) => void;
    }) => void,
  ): void;
}

export {};
