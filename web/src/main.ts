/**
 * The page. What people do here goes to the pipeline, and its results to the screen.
 *
 * From here to the network: `Pipeline` (one picture after another) → `Engine` (the worker's near
 * side) → `engine.worker.ts` (fit, network, mask) → `Painter` (drawing).
 */

import { isDrawn, type Effect, type Look } from './draw';
import { legendEntries, percent, showLegend } from './legend';
import { NetworkChoice } from './network_choice';
import { startServiceWorker } from './offline';
import { buttons, page, showBusy, showProblem } from './page';
import { Pipeline, type Shown, type Source } from './pipeline';
import { startProbe } from './probe';
import { saveMask, savePicture } from './save';
import { decodePhoto, hasSeveralCameras, openCamera, openVideo, type Facing } from './sources';
import { showSpeed } from './speed';

/** Numbers and legend of moving pictures change this often, so that they can be read. */
const READABLE_MS = 250;
/** Screen readers hear of other labels in moving pictures at most this often. */
const SPOKEN_MS = 5000;

const look: Look & { hidden: Set<number> } = {
  effect: 'overlay',
  opacity: 0.55,
  hidden: new Set(),
  background: page.colour.value,
};
const onProblem = (error: Error) => {
  showBusy(null);
  showProblem(error.message);
};
const pipeline = new Pipeline(page.canvas, look, { onShown: showResult, onProblem });
const networks = new NetworkChoice(
  (engine, labels) => {
    look.hidden.clear();
    pipeline.useNetwork(engine, labels);
  },
  (labels) => pipeline.useLabels(labels),
  onProblem,
);
let facing: Facing = 'environment';
let shownAt = 0;
let spokenAt = 0;

// --- results ----------------------------------------------------------------------------------

function showResult({ result, labels, speed }: Shown): void {
  const isLive = speed.fps !== null;
  page.screen.dataset.state = isLive ? 'live' : 'photo';
  page.screen.style.setProperty('--ratio', String(result.width / result.height));
  for (const action of ['save-picture', 'save-mask']) {
    for (const button of buttons(action)) button.disabled = false;
  }
  const now = performance.now();
  if (isLive && now - shownAt < READABLE_MS) return;
  shownAt = now;
  showSpeed(speed);
  const entries = legendEntries(result, labels);
  showLegend(entries, look.hidden, () => pipeline.repaint());
  if (isLive && now - spokenAt < SPOKEN_MS) return;
  spokenAt = now;
  const found = entries.map(({ name, share }) => `${name} ${percent(share)}`).join(', ');
  const text = found ? `Found: ${found}.` : 'Nothing found that this network knows.';
  const labelsOnly = isLive ? text.replace(/ (< )?\d+ %/g, '') : text;
  if (page.status.textContent !== labelsOnly) page.status.textContent = labelsOnly;
}

startProbe((x, y) => {
  if (!pipeline.shown) return null;
  const { result, labels } = pipeline.shown;
  const id = result.mask[y * result.width + x]!;
  const name = labels.names[id] ?? `class ${id}`;
  const isSeen = isDrawn(id, labels, look.hidden) || id === labels.background;
  return isSeen ? name : `${name} (not shown)`;
});

// --- pictures in ------------------------------------------------------------------------------

function show(source: Source): void {
  showProblem(null);
  const live = 'stream' in source;
  page.screen.dataset.mirrored = String(live && source.stream.mirrored);
  for (const button of buttons('pause')) button.hidden = !live;
  for (const button of buttons('turn')) button.hidden = true;
  setPaused(false);
  spokenAt = 0;
  pipeline.show(source);
  if (networks.isMissing) showProblem('There is no network yet: open a .tflite, or drop one here.');
}

async function openFile(file: File): Promise<void> {
  const ending = file.name.toLowerCase().replace(/.*\./, '');
  if (ending === 'txt') return networks.openLabels(file);
  if (file.type.startsWith('video/')) {
    return show({ stream: await openVideo(file), name: file.name });
  }
  if (file.type.startsWith('image/')) {
    return show({ picture: await decodePhoto(file), name: file.name });
  }
  // Browsers know no type for models: what is neither picture nor video is tried as one, and the
  // reader says what is wrong with it.
  showProblem(null);
  return networks.openFile(file);
}

async function useCamera(wanted: Facing): Promise<void> {
  // Telephones open one camera at a time, so the old one is let go first.
  if (pipeline.source && 'stream' in pipeline.source) pipeline.source.stream.close();
  facing = wanted;
  show({ stream: await openCamera(facing), name: 'camera' });
  const canTurn = await hasSeveralCameras();
  for (const button of buttons('turn')) button.hidden = !canTurn;
}

async function useExample(): Promise<void> {
  const answer = await fetch('example.jpg');
  show({ picture: await decodePhoto(await answer.blob()), name: 'example.jpg' });
}

function setPaused(paused: boolean): void {
  const [button] = buttons('pause');
  button!.lastElementChild!.textContent = paused ? 'Go on' : 'Pause';
}

function togglePause(): void {
  if (!pipeline.source || !('stream' in pipeline.source)) return;
  const { video } = pipeline.source.stream;
  setPaused(!video.paused);
  if (video.paused) void video.play();
  else video.pause();
}

// --- what people do ---------------------------------------------------------------------------

const actions: Record<string, () => void | Promise<void>> = {
  open: () => page.file.click(),
  camera: () => useCamera(facing),
  turn: () => useCamera(facing === 'user' ? 'environment' : 'user'),
  example: useExample,
  pause: togglePause,
  'save-picture': () => savePicture(page.canvas, pipeline.source!.name, look.effect),
  'save-mask': () => saveMask(pipeline.shown!, pipeline.source!.name),
  'open-model': () => page.modelFile.click(),
  background: () => page.backgroundFile.click(),
  dismiss: () => showProblem(null),
};

async function attempt(work: () => void | Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    onProblem(error as Error);
  }
}

for (const [action, work] of Object.entries(actions)) {
  for (const button of buttons(action)) button.addEventListener('click', () => attempt(work));
}

function onPick(input: HTMLInputElement, take: (file: File) => Promise<void>): void {
  input.addEventListener('change', () => {
    const [file] = input.files ?? [];
    if (file) void attempt(() => take(file));
    input.value = ''; // so that the same file can be picked again
  });
}

onPick(page.file, openFile);
onPick(page.modelFile, openFile);
onPick(page.backgroundFile, async (file) => {
  look.background = await decodePhoto(file);
  pipeline.repaint();
});

document.addEventListener('dragover', (event) => {
  event.preventDefault();
  page.screen.dataset.drop = 'true';
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) delete page.screen.dataset.drop;
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  delete page.screen.dataset.drop;
  const files = [...(event.dataTransfer?.files ?? [])];
  // A model first, then its labels.
  files.sort((a, b) => Number(a.name.endsWith('.txt')) - Number(b.name.endsWith('.txt')));
  void attempt(async () => {
    for (const file of files) await openFile(file);
  });
});
document.addEventListener('paste', (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) void attempt(() => openFile(file));
});
page.canvas.addEventListener('keydown', (event) => {
  if (event.key !== ' ') return;
  event.preventDefault();
  togglePause();
});

page.opacity.addEventListener('input', () => {
  look.opacity = Number(page.opacity.value) / 100;
  page.opacityValue.textContent = `${page.opacity.value} %`;
  pipeline.repaint();
});
page.colour.addEventListener('input', () => {
  look.background = page.colour.value;
  pipeline.repaint();
});
page.smooth.addEventListener('change', () => (pipeline.smooth = page.smooth.checked));
for (const radio of document.querySelectorAll<HTMLInputElement>('[name="effect"]')) {
  radio.addEventListener('change', () => {
    look.effect = radio.value as Effect;
    for (const row of document.querySelectorAll<HTMLElement>('[data-for]')) {
      row.hidden = !row.dataset.for!.split(' ').includes(look.effect);
    }
    page.screen.dataset.effect = look.effect;
    pipeline.repaint();
  });
}

// --- start ------------------------------------------------------------------------------------

await startServiceWorker();
await attempt(() => networks.start());
document.body.dataset.ready = 'true';
