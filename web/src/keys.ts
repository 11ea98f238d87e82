/** Keys for the whole page, where no control takes them. */

/** What each key does, by `event.key` in lower case. */
export type Keys = Record<string, () => void>;

export function startKeys(keys: Keys): void {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector('dialog[open]')) return;
    const target = event.target as HTMLElement;
    const isText = target.matches('select, textarea, input:not([type=radio], [type=checkbox])');
    const work = keys[event.key.toLowerCase()];
    if (!work || isText) return;
    // Space presses a button that has the focus, and ticks a box.
    if (event.key === ' ' && target.matches('button, input, summary, a')) return;
    event.preventDefault();
    work();
  });
}
