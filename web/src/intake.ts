/** How pictures and models come: picked, dropped, pasted. */

import { segmentMany } from './batch';
import { settings } from './controls';
import type { Look } from './draw';
import { look } from './look';
import type { NetworkChoice } from './network_choice';
import { page, showProblem } from './page';
import type { Pipeline, Source } from './pipeline';
import { decodePhoto, openVideo } from './sources';

interface Doors {
  pipeline: Pipeline;
  networks: NetworkChoice;
  look: Look;
  show: (source: Source) => void;
}

type Attempt = (work: () => void | Promise<void>) => Promise<void>;

/** Open what came: one photo or video on the screen, several photos into a zip, models. */
export async function openFiles(files: File[], doors: Doors): Promise<void> {
  const photos = files.filter(isPhoto);
  if (photos.length > 1) {
    if (doors.networks.isMissing) throw new Error('Open a model first, then the photos.');
    await segmentMany(photos, doors.pipeline, doors.look);
    files = files.filter((file) => !isPhoto(file));
  }
  for (const file of files) await openFile(file, doors);
}

async function openFile(file: File, { networks, show }: Doors): Promise<void> {
  const ending = file.name.toLowerCase().replace(/.*\./, '');
  if (ending === 'txt') return networks.openLabels(file);
  if (file.type.startsWith('video/')) {
    return show({ stream: await openVideo(file), name: file.name, file });
  }
  if (isPhoto(file)) return show({ picture: await decodePhoto(file), name: file.name });
  // Browsers know no type for models: what is neither picture nor video is tried as one, and the
  // reader says what is wrong with it.
  showProblem(null);
  return networks.openFile(file);
}

function isPhoto(file: File): boolean {
  return file.type.startsWith('image/') || /\.(heic|heif|avif|jxl)$/i.test(file.name);
}

export async function useExample(): Promise<Source> {
  const answer = await fetch('example.jpg').catch(() => null);
  if (!answer?.ok) throw new Error('The example could not be loaded: its host is not reached.');
  return { picture: await decodePhoto(await answer.blob()), name: 'example.jpg' };
}

export function startIntake(open: (files: File[]) => Promise<void>, attempt: Attempt): void {
  onPick(page.file, open);
  onPick(page.modelFile, open);
  onPick(page.backgroundFile, ([file]) =>
    attempt(async () => {
      look.background = await decodePhoto(file!);
      settings.apply({});
    }),
  );
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
    void attempt(() => take(event.dataTransfer, open));
  });
  document.addEventListener('paste', (event) => {
    if (!(event.target as Element | null)?.closest?.('input, select')) {
      void attempt(() => take(event.clipboardData, open));
    }
  });
}

function onPick(input: HTMLInputElement, take: (files: File[]) => Promise<void>): void {
  input.addEventListener('change', () => {
    const files = [...(input.files ?? [])];
    if (files.length) void take(files);
    input.value = ''; // so that the same file can be picked again
  });
}

async function take(
  transfer: DataTransfer | null,
  open: (files: File[]) => Promise<void>,
): Promise<void> {
  const files = [...(transfer?.files ?? [])];
  // A model first, then its labels.
  files.sort((a, b) => Number(a.name.endsWith('.txt')) - Number(b.name.endsWith('.txt')));
  if (files.length) return open(files);
  const text = transfer?.getData('text/uri-list') || transfer?.getData('text/plain') || '';
  const address = text.split(/\r?\n/).find((line) => /^(https?|ftp|file):/i.test(line.trim()));
  if (address) {
    throw new Error(
      `That is an address (${address.trim().slice(0, 80)}), not a picture. This page asks nobody ` +
        'for anything but its own host, so that nothing leaves this device. Save the picture ' +
        'first and open its file, or copy the picture itself and paste it.',
    );
  }
}
