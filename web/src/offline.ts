/** The service worker: it keeps the page for use offline, and lets it use several threads. */

import { showNews } from './page';

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
  holdOwnVersion();
  try {
    watchForNewVersion(container, await container.register('sw.js'));
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

/** As long as this page is open, the service worker keeps the files that belong to it. */
function holdOwnVersion(): void {
  void navigator.locks?.request(import.meta.url, { mode: 'shared' }, () => new Promise(() => {}));
}

/** Say so when a new version of the page has been loaded, and take it when somebody wishes. */
function watchForNewVersion(
  container: ServiceWorkerContainer,
  registration: ServiceWorkerRegistration,
): void {
  const offer = () => {
    if (!registration.waiting || !container.controller) return;
    showNews('There is a new version of this page.', 'Reload', () => {
      container.addEventListener('controllerchange', () => location.reload(), { once: true });
      registration.waiting?.postMessage('take over');
    });
  };
  offer();
  registration.addEventListener('updatefound', () => {
    registration.installing?.addEventListener('statechange', offer);
  });
  // A page that stays open for days looks for a new version when it is looked at.
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') registration.update().catch(() => {});
  });
}

function controlled(container: ServiceWorkerContainer): Promise<void> {
  return new Promise((resolve) => {
    if (container.controller) resolve();
    else container.addEventListener('controllerchange', () => resolve(), { once: true });
  });
}
