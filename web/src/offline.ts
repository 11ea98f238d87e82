/** The service worker: it keeps the page for use offline, and lets it use several threads. */

const RELOADED = 'deeplab-reloaded';

/**
 * Wait until the service worker answers this page's requests, so that it keeps all that is loaded.
 *
 * A page may use several threads when two headers isolate it from other origins. Where the host
 * does not send them, the service worker adds them, and the page is loaded a second time.
 */
export async function startServiceWorker(): Promise<void> {
  const container = navigator.serviceWorker;
  if (!container) return; // not on https:// or localhost, or a private window
  try {
    await container.register('sw.js');
  } catch {
    return;
  }
  await Promise.race([controlled(container), new Promise((resolve) => setTimeout(resolve, 4000))]);
  if (!crossOriginIsolated && container.controller && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, 'yes');
    location.reload();
    await new Promise(() => {}); // nothing more happens on this page
  }
}

function controlled(container: ServiceWorkerContainer): Promise<void> {
  return new Promise((resolve) => {
    if (container.controller) resolve();
    else container.addEventListener('controllerchange', () => resolve(), { once: true });
  });
}
