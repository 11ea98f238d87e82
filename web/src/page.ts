/** The elements of the page, by their ids; those of `index.html`. */

function find<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html: no ${kind.name} '${id}'`);
  return element;
}

export const page = {
  screen: find('screen', HTMLDivElement),
  canvas: find('canvas', HTMLCanvasElement),
  before: find('before', HTMLCanvasElement),
  divider: find('divider', HTMLInputElement),
  probe: find('probe', HTMLParagraphElement),
  busy: find('busy', HTMLDivElement),
  busyText: find('busy-text', HTMLSpanElement),
  busyBar: find('busy-bar', HTMLProgressElement),
  rate: find('rate', HTMLParagraphElement),
  status: find('status', HTMLParagraphElement),
  problem: find('problem', HTMLDivElement),
  news: find('news', HTMLDivElement),
  effects: find('effects', HTMLDivElement),
  help: find('help', HTMLDialogElement),
  links: find('links', HTMLSpanElement),
  legend: find('legend', HTMLUListElement),
  legendEmpty: find('legend-empty', HTMLParagraphElement),
  dropped: find('dropped', HTMLParagraphElement),
  split: find('split', HTMLDivElement),
  opacity: find('opacity', HTMLInputElement),
  opacityValue: find('opacity-value', HTMLOutputElement),
  threshold: find('threshold', HTMLInputElement),
  thresholdValue: find('threshold-value', HTMLOutputElement),
  compare: find('compare', HTMLSelectElement),
  modelCard: find('model-card', HTMLDetailsElement),
  modelFacts: find('model-facts', HTMLDListElement),
  colour: find('background-colour', HTMLInputElement),
  model: find('model', HTMLSelectElement),
  processor: find('processor', HTMLSelectElement),
  threads: find('threads', HTMLSelectElement),
  smooth: find('smooth', HTMLInputElement),
  note: find('network-note', HTMLParagraphElement),
  file: find('file', HTMLInputElement),
  modelFile: find('model-file', HTMLInputElement),
  backgroundFile: find('background-file', HTMLInputElement),
};

/** The buttons with `data-action="name"`; there may be several. */
export function buttons(action: string): HTMLButtonElement[] {
  return [...document.querySelectorAll<HTMLButtonElement>(`[data-action="${action}"]`)];
}

/** Say what is being done, over the picture; nothing when it is done. */
export function showBusy(text: string | null, done?: number): void {
  page.busy.hidden = text === null;
  if (page.busyText.textContent !== text) page.busyText.textContent = text;
  page.busyBar.hidden = done === undefined;
  page.busyBar.value = done ?? 0;
}

/** Say what went wrong; nothing takes the message away. */
export function showProblem(text: string | null): void {
  page.problem.hidden = text === null;
  page.problem.firstElementChild!.textContent = text;
}

/** Say something that is good to know, with a button that does something about it. */
export function showNews(text: string, button = '', onPress: () => void = hideNews): void {
  page.news.hidden = false;
  page.news.firstElementChild!.textContent = text;
  const [press] = buttons('news');
  press!.hidden = !button;
  press!.textContent = button;
  press!.onclick = onPress;
}

export function hideNews(): void {
  page.news.hidden = true;
}
