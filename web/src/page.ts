/** The elements of the page, by their ids; those of `index.html`. */

function find<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html: no ${kind.name} '${id}'`);
  return element;
}

export const page = {
  screen: find('screen', HTMLDivElement),
  canvas: find('canvas', HTMLCanvasElement),
  probe: find('probe', HTMLParagraphElement),
  busy: find('busy', HTMLDivElement),
  rate: find('rate', HTMLParagraphElement),
  status: find('status', HTMLParagraphElement),
  problem: find('problem', HTMLDivElement),
  legend: find('legend', HTMLUListElement),
  legendEmpty: find('legend-empty', HTMLParagraphElement),
  split: find('split', HTMLDivElement),
  opacity: find('opacity', HTMLInputElement),
  opacityValue: find('opacity-value', HTMLOutputElement),
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
export function showBusy(text: string | null): void {
  page.busy.hidden = text === null;
  page.busy.lastElementChild!.textContent = text;
  if (text) page.status.textContent = text;
}

/** Say what went wrong; nothing takes the message away. */
export function showProblem(text: string | null): void {
  page.problem.hidden = text === null;
  page.problem.firstElementChild!.textContent = text;
}
