/**
 * The page. What people do here goes to the pipeline, and its results to the screen.
 *
 * From here to the network: `Pipeline` (one picture after another) → `Engine` (the worker's near
 * side) → `engine.worker.ts` (fit, network, mask) → `Painter` (drawing). `controls.ts` has the
 * settings, `results.ts` what is said of a picture, `intake.ts` how pictures come.
 */

import { startControls, settings } from './controls';
import { readAddress } from './address';
import { openFiles, startIntake, useExample } from './intake';
import { startKeys } from './keys';
import { look } from './look';
import { NetworkChoice } from './network_choice';
import { startServiceWorker } from './offline';
import { buttons, hideNews, page, showBusy, showProblem } from './page';
import { Pipeline, type Source } from './pipeline';
import { canRecord, stopRecording, toggleRecording } from './record';
import { forgetResults, onPicture, showResult, showSource } from './results';
import { canShare, copyPicture, saveMask, savePicture, saveVideo, sharePicture } from './save';
import { hasSeveralCameras, openCamera, type Facing } from './sources';
import { zoomFit, zoomIn, zoomOut } from './view';

document.getElementById('no-start')!.remove(); // it has started

const onProblem = (error: Error) => {
  showBusy(null);
  showProblem(error.message);
};
const pipeline = new Pipeline(page.canvas, look, {
  onShown: (shown) => showResult(shown, pipeline),
  onSource: showSource,
  onProblem,
  onWorking: (working) => page.screen.setAttribute('aria-busy', String(working)),
});
const networks = new NetworkChoice(
  (engine, labels, tellsMore) => {
    look.hidden.clear();
    forgetResults();
    pipeline.useNetwork(engine, labels, tellsMore);
  },
  (labels) => {
    forgetResults();
    pipeline.useLabels(labels);
  },
  onProblem,
  () => look.hidden.size === 0 && !look.dropped && Boolean(page.news.hidden),
);
let facing: Facing = 'environment';

// --- pictures ---------------------------------------------------------------------------------

function show(source: Source): void {
  showProblem(null);
  stopRecording();
  const live = 'stream' in source;
  page.screen.dataset.mirrored = String(live && source.stream.mirrored);
  const isCamera = live && source.name === 'camera';
  showLiveButtons(live, isCamera);
  const isFile = live && source.file !== undefined && 'VideoEncoder' in window;
  for (const button of buttons('save-video')) button.hidden = !isFile;
  setPaused(false);
  pipeline.show(source);
  if (networks.isMissing) showProblem('There is no network yet: open a .tflite, or drop one here.');
  void attempt(() => networks.suit(live));
}

function showLiveButtons(live: boolean, isCamera: boolean): void {
  for (const button of buttons('pause')) button.hidden = !live;
  for (const button of buttons('record')) button.hidden = !live || !canRecord();
  for (const button of buttons('stop')) button.hidden = !isCamera;
  for (const button of buttons('turn')) button.hidden = true;
}

async function useCamera(wanted: Facing): Promise<void> {
  // Telephones open one camera at a time, so the old one is let go first.
  if (pipeline.source && 'stream' in pipeline.source) pipeline.source.stream.close();
  facing = wanted;
  const stream = await openCamera(facing, () => void attempt(() => stopCamera('gone')));
  show({ stream, name: 'camera' });
  const canTurn = await hasSeveralCameras();
  for (const button of buttons('turn')) button.hidden = !canTurn;
}

/** Switch the camera off; the last picture stays as a photo. */
async function stopCamera(why: 'wished' | 'gone'): Promise<void> {
  stopRecording();
  await pipeline.stop();
  showLiveButtons(false, false);
  if (!pipeline.source) page.screen.dataset.state = 'empty';
  if (why === 'gone')
    showProblem('The camera has gone: it was unplugged, or taken by another program.');
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

async function saveWholeVideo(): Promise<void> {
  const { source } = pipeline;
  if (!source || !('stream' in source) || !source.file) return;
  source.stream.video.pause(); // the network is needed for the file
  setPaused(true);
  await saveVideo(source.file, source.name, pipeline, look);
}

function ifShown(work: (name: string) => void | Promise<void>): void | Promise<void> {
  if (pipeline.shown && pipeline.source) return work(pipeline.source.name);
}

// --- what people do ---------------------------------------------------------------------------

const actions: Record<string, () => void | Promise<void>> = {
  open: () => page.file.click(),
  camera: () => useCamera(facing),
  turn: () => useCamera(facing === 'user' ? 'environment' : 'user'),
  stop: () => stopCamera('wished'),
  example: async () => show(await useExample()),
  pause: togglePause,
  record: () => ifShown((name) => toggleRecording(page.canvas, name)),
  'save-picture': () => ifShown((name) => savePicture(page.canvas, name, look.effect)),
  'save-video': saveWholeVideo,
  'save-mask': () => ifShown((name) => saveMask(pipeline.shown!, name)),
  copy: () => ifShown(() => copyPicture(page.canvas)),
  share: () => ifShown((name) => sharePicture(page.canvas, name, look.effect)),
  'open-model': () => page.modelFile.click(),
  background: () => page.backgroundFile.click(),
  dismiss: () => showProblem(null),
  'dismiss-news': hideNews,
  restore: () => onPicture(pipeline, null),
  'zoom-in': zoomIn,
  'zoom-out': zoomOut,
  'zoom-fit': zoomFit,
  help: () => page.help.showModal(),
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
for (const button of buttons('share')) button.hidden = !canShare();

startControls(pipeline, networks);
startIntake(
  (files) => attempt(() => openFiles(files, { pipeline, networks, look, show })),
  attempt,
);
startKeys({
  o: () => page.file.click(),
  c: () =>
    void attempt(() =>
      pipeline.source?.name === 'camera' && 'stream' in pipeline.source
        ? stopCamera('wished')
        : useCamera(facing),
    ),
  ' ': togglePause,
  s: () => void attempt(actions['save-picture']!),
  m: () => void attempt(actions['save-mask']!),
  b: () => settings.nextComparison(),
  '+': zoomIn,
  '=': zoomIn,
  '-': zoomOut,
  '0': zoomFit,
  '?': () => page.help.showModal(),
  ...Object.fromEntries(
    [...document.querySelectorAll<HTMLInputElement>('[name="effect"]')].map((radio, i) => [
      String(i + 1),
      () => radio.click(),
    ]),
  ),
});

// --- start ------------------------------------------------------------------------------------

const wanted = readAddress(location.hash);
settings.apply(wanted);
await startServiceWorker();
await attempt(() => networks.start(wanted.model ?? null));
for (const { title, href } of networks.links) {
  const link = document.createElement('a');
  link.href = href;
  link.textContent = title;
  page.links.append(' · ', link);
}
document.body.dataset.ready = 'true';
