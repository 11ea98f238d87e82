/** The choice of model, processor and threads: opens the engine that they ask for. */

import type { Engine, Loaded, ModelData } from './engine';
import { offeredGpu } from './gpu';
import { readLabelFile, numberedLabels, type LabelSet } from './labels';
import { Loading, progressWords } from './load';
import { showModelCard } from './model_card';
import { fetchModel, readCatalogue, readModel, type Catalogue, type ModelCard } from './models';
import { openNetwork, type Opened, type Wish } from './opening';
import { page, showBusy } from './page';
import { loadRuntime } from './runtime';
import { checkLabels } from './understand';

const MOST_THREADS = 8;
const LISTS = [page.model, page.processor, page.threads];
/** A line that has not brought the runtime by then gets the smaller model first. */
const SLOW_MS = 1500;

/** A network that is open, and what there is to say about it. */
interface Current {
  model: ModelData;
  loaded: Loaded;
  engine: Engine;
}

export class NetworkChoice {
  private catalogue: Catalogue = { models: [], labelSets: [], knownFiles: {}, links: [] };
  private readonly dropped: { model: ModelData; card: ModelCard | undefined }[] = [];
  private current: Current | undefined;
  /** What the lists say of the network that is open: model, processor, threads. */
  private inUse = ['', 'auto', '1'];
  /** Counts the openings; one that is overtaken by another ends. */
  private openings = 0;
  /** Somebody chose a model; it is not changed for moving pictures then. */
  private isChosen = false;
  private hasGpu = false;
  private isLive = false;
  /** The list of models has been read. */
  private hasStarted = false;
  /** The model for photos is still to come; the one for moving pictures stands in for it. */
  private standsIn = false;

  constructor(
    private readonly onNetwork: (engine: Engine, labels: LabelSet, tellsMore: boolean) => void,
    private readonly onLabels: (labels: LabelSet) => void,
    private readonly onProblem: (error: Error) => void,
    /** Whether nobody has done anything yet that another network would undo. */
    private readonly isUntouched: () => boolean,
  ) {}

  /** Whether no network is open, and none on its way. */
  get isMissing(): boolean {
    return !this.current && this.hasStarted && Boolean(page.busy.hidden);
  }

  /** Whether the network can tell how sure it is; true while there is none. */
  get hasConfidence(): boolean {
    return this.current?.loaded.hasConfidence ?? true;
  }

  /** What else the host has for people. */
  get links(): Catalogue['links'] {
    return this.catalogue.links;
  }

  /** Fill the lists with what there is, and open the model of that title, else the first. */
  async start(title: string | null): Promise<void> {
    const cores = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
    for (let count = 1; count <= cores; count++) page.threads.add(new Option(String(count)));
    page.threads.value = String(Math.min(cores, 4));
    page.threads.disabled = cores === 1;
    const gpu = await offeredGpu();
    page.processor.querySelector<HTMLOptionElement>('[value="gpu"]')!.disabled = gpu === null;
    this.hasGpu = gpu === 'real'; // one that the CPU imitates is slower than the CPU itself
    try {
      this.catalogue = await readCatalogue();
    } finally {
      this.hasStarted = true;
    }
    page.model.addEventListener('change', () => (this.isChosen = true));
    for (const list of LISTS) list.addEventListener('change', () => this.open());
    this.listModels();
    const wanted = this.catalogue.models.findIndex((model) => model.title === title);
    if (wanted >= 0) {
      page.model.value = `shipped ${wanted}`;
      this.isChosen = true;
    }
    if (title !== null && wanted < 0) {
      this.onProblem(
        new Error(`The address names the model '${title}', which is not listed here.`),
      );
    }
    if (this.catalogue.models.length) await this.openFirst();
    else this.say('No model is shipped with this page: drop a .tflite on it, or open one.');
  }

  /** Take the model for moving pictures, or the one for photos, unless somebody chose one. */
  async suit(isLive: boolean): Promise<void> {
    if (this.isChosen || isLive === this.isLive || !this.catalogue.models.length) return;
    this.isLive = isLive;
    if (this.standsIn) return;
    const wanted = `shipped ${isLive ? this.forMoving : 0}`;
    if (page.model.value === wanted) return;
    page.model.value = wanted;
    await this.open();
  }

  private get forMoving(): number {
    return Math.max(
      this.catalogue.models.findIndex((model) => model.live),
      0,
    );
  }

  /**
   * Open the model of the list; on a slow line the smaller one first, and that one after it.
   *
   * Every network needs the runtime, so it is loaded before any, and its way tells of the line.
   */
  private async openFirst(): Promise<void> {
    const [first, small] = [this.catalogue.models[0]!, this.catalogue.models[this.forMoving]!];
    const isOpen = () => this.openings > 0; // somebody opened one meanwhile
    page.model.value ||= 'shipped 0';
    if (this.isChosen || (small.bytes ?? 0) >= (first.bytes ?? 0)) return void (await this.open());
    const { graphics, threads } = this.wish;
    const loading = loudly(() => this.openings <= 1);
    const runtime = loadRuntime(graphics ? 1 : threads, loading).then(
      () => true,
      () => true, // what is wrong is told where it is opened
    );
    const isFast = await Promise.race([runtime, after(SLOW_MS).then(() => false)]);
    if (isOpen()) return;
    if (isFast) return void (await this.open(loading));
    page.model.value = `shipped ${this.forMoving}`;
    this.standsIn = await this.open(loading);
    if (this.standsIn) void this.openBetter();
  }

  /** Load the model for photos while another works, and take its place when it is ready. */
  private async openBetter(): Promise<void> {
    const own = this.openings;
    const [first] = this.catalogue.models;
    this.say(`${page.note.textContent} ${first!.title}, which is better, is on its way.`);
    const quietly = new Loading(() => {});
    const better = await this.openModel('shipped 0', quietly).catch(() => null); // it stays as it is
    this.standsIn = false;
    if (!better) return;
    const isWanted = own === this.openings && !this.isChosen && !this.isLive && this.isUntouched();
    if (!isWanted) return better.engine.close();
    page.model.value = 'shipped 0';
    this.take(better);
  }

  /** The title of the model that somebody chose from the list; null where nobody did. */
  get chosenTitle(): string | null {
    const [kind, index] = page.model.value.split(' ');
    return this.isChosen && kind === 'shipped' ? this.catalogue.models[Number(index)]!.title : null;
  }

  /** Open a model that was dropped or picked, and keep it in the list. */
  async openFile(file: File): Promise<void> {
    this.dropped.push(await readModel(file, this.catalogue));
    this.listModels();
    page.model.value = `dropped ${this.dropped.length - 1}`;
    if (await this.open()) {
      this.isChosen = true;
    } else {
      this.dropped.pop();
      this.listModels();
    }
  }

  /** Name the classes of the network that is open by a file with one name per line. */
  async openLabels(file: File): Promise<void> {
    if (!this.current) throw new Error('Open a model first, then its label file.');
    const { model, loaded } = this.current;
    const labels = readLabelFile(await file.text(), this.catalogue.labelSets);
    checkLabels(model.name, labels, loaded.numClasses);
    model.hints.labels = labels;
    this.onLabels(labels);
    this.say(`The classes are named by ${file.name}.`);
  }

  private listModels(): void {
    const shipped = this.catalogue.models.map(({ title }, i) => new Option(title, `shipped ${i}`));
    const own = this.dropped.map(({ model }, i) => new Option(model.name, `dropped ${i}`));
    page.model.replaceChildren(...shipped, ...own);
    page.model.value = this.inUse[0]!;
  }

  /** The chosen model: as it is, or its file for graphics processors where it has one. */
  private async load(which: string, graphics: boolean, loading: Loading): Promise<ModelData> {
    const [kind, index] = which.split(' ');
    if (kind === 'dropped') return this.dropped[Number(index)]!.model;
    return fetchModel(this.catalogue.models[Number(index)]!, graphics, loading);
  }

  private get card(): ModelCard | undefined {
    const [kind, index] = page.model.value.split(' ');
    const list = kind === 'dropped' ? this.dropped : this.catalogue.models;
    return list[Number(index)]?.card;
  }

  /** Open what the lists say. Where that fails, all stays as it was. */
  private async open(begun?: Loading): Promise<boolean> {
    const opening = ++this.openings;
    page.model.value ||= 'shipped 0';
    const isCurrent = () => opening === this.openings;
    try {
      const opened = await this.openModel(page.model.value, begun ?? loudly(isCurrent));
      if (isCurrent()) this.take(opened);
      else opened.engine.close();
      return true;
    } catch (error) {
      if (!isCurrent()) return false;
      LISTS.forEach((list, i) => (list.value = this.inUse[i]!));
      page.status.textContent = '';
      this.onProblem(error as Error);
      return false;
    } finally {
      if (isCurrent()) showBusy(null);
    }
  }

  private openModel(which: string, loading: Loading): Promise<Opened> {
    const load = (graphics: boolean) => this.load(which, graphics, loading);
    return openNetwork(load, this.wish, this.catalogue.labelSets, loading);
  }

  private get wish(): Wish {
    const { value } = page.processor;
    const graphics = value === 'gpu' || (value === 'auto' && this.hasGpu);
    return { graphics, threads: Number(page.threads.value) };
  }

  /** Work with a network from now on. */
  private take({ model, engine, loaded, notes, threads }: Opened): void {
    if (threads) page.threads.value = String(threads);
    const labels = this.labelsOf(model, loaded, notes);
    this.current = { model, loaded, engine };
    this.inUse = LISTS.map((list) => list.value);
    if (loaded.assumed.length) notes.push(`Assumed: ${loaded.assumed.join('; ')}.`);
    notes.unshift(`${loaded.width} × ${loaded.height} pixels, ${labels.names.length} classes.`);
    this.say(notes.join(' '));
    showModelCard(model, labels, this.card);
    page.status.textContent = `${model.name} is ready.`;
    this.onNetwork(engine, labels, loaded.hasConfidence);
  }

  private labelsOf(model: ModelData, loaded: Loaded, notes: string[]): LabelSet {
    const labels = loaded.labels ?? model.hints.labels;
    if (labels) return labels;
    notes.push(
      'The model does not name its classes: open or drop a text file with one name per line.',
    );
    return numberedLabels(loaded.numClasses ?? 256);
  }

  private say(note: string): void {
    page.note.textContent = note;
  }
}

/** Loading that is told of over the picture, as long as it is of interest. */
function loudly(isCurrent: () => boolean): Loading {
  const begin = performance.now();
  showBusy('Loading the network…');
  return new Loading((loaded, total) => {
    if (!isCurrent()) return;
    const words = progressWords(loaded, total, performance.now() - begin);
    if (loaded < total) showBusy(`Loading the network: ${words}`, loaded / total);
    else showBusy('Starting the network…');
  });
}

function after(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
