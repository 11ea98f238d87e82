/** The choice of model, processor and threads: opens the engine that they ask for. */

import { Engine, type Loaded, type ModelData } from './engine';
import { offeredGpu } from './gpu';
import { readLabelFile, numberedLabels, type LabelSet } from './labels';
import { Loading, progressWords } from './load';
import { showModelCard } from './model_card';
import { fetchModel, readCatalogue, readModel, type Catalogue, type ModelCard } from './models';
import { page, showBusy } from './page';
import { loadRuntime, wasmFolder } from './runtime';
import { TfliteFile } from './tflite';
import { checkLabels } from './understand';

const MOST_THREADS = 8;
const LISTS = [page.model, page.processor, page.threads];

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

  constructor(
    private readonly onNetwork: (engine: Engine, labels: LabelSet, tellsMore: boolean) => void,
    private readonly onLabels: (labels: LabelSet) => void,
    private readonly onProblem: (error: Error) => void,
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
    if (this.catalogue.models.length) await this.open();
    else this.say('No model is shipped with this page: drop a .tflite on it, or open one.');
  }

  /** Take the model for moving pictures, or the one for photos, unless somebody chose one. */
  async suit(isLive: boolean): Promise<void> {
    if (this.isChosen || isLive === this.isLive || !this.catalogue.models.length) return;
    this.isLive = isLive;
    const live = this.catalogue.models.findIndex((model) => model.live);
    const wanted = `shipped ${isLive && live >= 0 ? live : 0}`;
    if (page.model.value === wanted) return;
    page.model.value = wanted;
    await this.open();
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
  private async load(graphics: boolean, loading: Loading): Promise<ModelData> {
    const [kind, index] = page.model.value.split(' ');
    if (kind === 'dropped') return this.dropped[Number(index)]!.model;
    return fetchModel(this.catalogue.models[Number(index)]!, graphics, loading);
  }

  private get card(): ModelCard | undefined {
    const [kind, index] = page.model.value.split(' ');
    const list = kind === 'dropped' ? this.dropped : this.catalogue.models;
    return list[Number(index)]?.card;
  }

  /** Open what the lists say. Where that fails, all stays as it was. */
  private async open(): Promise<boolean> {
    const opening = ++this.openings;
    page.model.value ||= 'shipped 0';
    const begin = performance.now();
    showBusy('Loading the network…');
    const loading = new Loading((loaded, total) => {
      if (opening !== this.openings) return;
      const words = progressWords(loaded, total, performance.now() - begin);
      showBusy(
        loaded < total ? `Loading the network: ${words}` : 'Starting the network…',
        loaded < total ? loaded / total : undefined,
      );
    });
    try {
      const notes: string[] = [];
      const { model, engine, loaded } = await this.openEngine(loading, notes);
      if (opening !== this.openings) {
        engine.close();
        return true;
      }
      const labels = this.labelsOf(model, loaded, notes);
      this.current = { model, loaded, engine };
      this.inUse = LISTS.map((list) => list.value);
      if (loaded.assumed.length) notes.push(`Assumed: ${loaded.assumed.join('; ')}.`);
      notes.unshift(`${loaded.width} × ${loaded.height} pixels, ${labels.names.length} classes.`);
      this.say(notes.join(' '));
      showModelCard(model, labels, this.card);
      page.status.textContent = `${model.name} is ready.`;
      this.onNetwork(engine, labels, loaded.hasConfidence);
      return true;
    } catch (error) {
      if (opening !== this.openings) return false;
      LISTS.forEach((list, i) => (list.value = this.inUse[i]!));
      page.status.textContent = '';
      this.onProblem(error as Error);
      return false;
    } finally {
      if (opening === this.openings) showBusy(null);
    }
  }

  /**
   * Open the chosen model on the processor that suits its weights.
   *
   * Integer networks go to the CPU, whatever is wished for; a wish for the graphics processor stays
   * in the list, for the next model.
   */
  private async openEngine(loading: Loading, notes: string[]) {
    const wish = page.processor.value;
    const threads = Number(page.threads.value);
    if (wish === 'gpu' || (wish === 'auto' && this.hasGpu)) {
      const runtime = loadRuntime(1, loading);
      const [model] = await Promise.all([this.load(true, loading), runtime]);
      if (new TfliteFile(model.name, model.data).isInteger) {
        notes.push('Its weights are integers, which the CPU is for.');
      } else {
        try {
          const opened = await this.startEngine(model, { processor: 'gpu', threads: 1 });
          notes.push('It runs on the graphics processor.');
          return opened;
        } catch (error) {
          // What is no model at all is refused once more below, in the same words.
          notes.push((error as Error).message);
        }
      }
    }
    const [model] = await Promise.all([this.load(false, loading), loadRuntime(threads, loading)]);
    try {
      const opened = await this.startEngine(model, { processor: 'cpu', threads });
      notes.push(threads > 1 ? `It runs on the CPU, ${threads} threads.` : 'It runs on the CPU.');
      if (!crossOriginIsolated) {
        notes.push('One thread: more need headers that this page was served without.');
      }
      return opened;
    } catch (error) {
      // Threads need instructions that not every browser has.
      if (threads === 1 || !/threads|SIMD/i.test((error as Error).message)) throw error;
      page.threads.value = '1';
      notes.push('It runs on the CPU. One thread: this browser lacks what more of them need.');
      return this.startEngine(model, { processor: 'cpu', threads: 1 });
    }
  }

  private async startEngine(
    model: ModelData,
    options: { processor: 'gpu' | 'cpu'; threads: number },
  ) {
    const known = this.catalogue.labelSets;
    const wasm = { ...options, wasmFolder: wasmFolder() };
    return { model, ...(await Engine.open(model, known, wasm)) };
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
