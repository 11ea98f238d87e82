/** The choice of model, processor and threads: opens the engine that they ask for. */

import { Engine, type Loaded, type ModelData } from './engine';
import { readLabelFile, numberedLabels, type LabelSet } from './labels';
import { fetchModel, readCatalogue, readModel, type Catalogue } from './models';
import { page, showBusy } from './page';
import { checkLabels } from './understand';

const MOST_THREADS = 8;
const LISTS = [page.model, page.processor, page.threads];

export class NetworkChoice {
  private catalogue: Catalogue = { models: [], labelSets: [], knownFiles: {} };
  private readonly dropped: ModelData[] = [];
  private current: { model: ModelData; loaded: Loaded } | undefined;
  /** What the lists say of the network that is open: model, processor, threads. */
  private inUse = ['', 'cpu', '1'];
  /** Counts the openings; one that is overtaken by another ends. */
  private openings = 0;

  constructor(
    private readonly onNetwork: (engine: Engine, labels: LabelSet) => void,
    private readonly onLabels: (labels: LabelSet) => void,
    private readonly onProblem: (error: Error) => void,
  ) {}

  /** Whether no network is open, and none on its way. */
  get isMissing(): boolean {
    return !this.current && Boolean(page.busy.hidden);
  }

  /** Fill the lists with what there is, and open the first model. */
  async start(): Promise<void> {
    const cores = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
    for (let count = 1; count <= cores; count++) page.threads.add(new Option(String(count)));
    page.threads.value = String(Math.min(cores, 4));
    page.threads.disabled = cores === 1;
    await this.offerGpu();
    this.catalogue = await readCatalogue();
    for (const list of LISTS) list.addEventListener('change', () => this.open());
    this.listModels();
    if (this.catalogue.models.length) await this.open();
    else this.say('No model is shipped with this page: drop a .tflite on it, or open one.');
  }

  /** Open a model that was dropped or picked, and keep it in the list. */
  async openFile(file: File): Promise<void> {
    this.dropped.push(await readModel(file, this.catalogue));
    this.listModels();
    page.model.value = `dropped ${this.dropped.length - 1}`;
    if (!(await this.open())) {
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
    const own = this.dropped.map(({ name }, i) => new Option(name, `dropped ${i}`));
    page.model.replaceChildren(...shipped, ...own);
    page.model.value = this.inUse[0]!;
  }

  private async chosenModel(): Promise<ModelData> {
    const [kind, index] = page.model.value.split(' ');
    if (kind === 'dropped') return this.dropped[Number(index)]!;
    return fetchModel(this.catalogue.models[Number(index)]!);
  }

  /** Open what the lists say. Where that fails, all stays as it was. */
  private async open(): Promise<boolean> {
    const opening = ++this.openings;
    page.model.value ||= 'shipped 0';
    showBusy('Loading the network…');
    try {
      const model = await this.chosenModel();
      const notes: string[] = [];
      const { engine, loaded } = await this.openEngine(model, notes);
      if (opening !== this.openings) {
        engine.close();
        return true;
      }
      const labels = this.labelsOf(model, loaded, notes);
      this.current = { model, loaded };
      this.inUse = LISTS.map((list) => list.value);
      notes.unshift(`${loaded.width} × ${loaded.height} pixels, ${labels.names.length} classes.`);
      this.say(notes.join(' '));
      page.status.textContent = `${model.name} is ready.`;
      this.onNetwork(engine, labels);
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

  private async openEngine(model: ModelData, notes: string[]) {
    const wasmFolder = new URL('wasm/', document.baseURI).href;
    const known = this.catalogue.labelSets;
    const threads = Number(page.threads.value);
    if (page.processor.value === 'gpu') {
      try {
        return await Engine.open(model, known, { processor: 'gpu', threads: 1, wasmFolder });
      } catch (error) {
        // What is no model at all is refused once more below, in the same words.
        page.processor.value = 'cpu';
        notes.push(`${(error as Error).message} It runs on the CPU.`);
      }
    }
    if (!crossOriginIsolated) {
      notes.push('One thread: more need headers that this page was served without.');
    }
    try {
      return await Engine.open(model, known, { processor: 'cpu', threads, wasmFolder });
    } catch (error) {
      // Threads need instructions that not every browser has.
      if (threads === 1 || !/threads|SIMD/i.test((error as Error).message)) throw error;
      page.threads.value = '1';
      notes.push('One thread: this browser lacks what more of them need.');
      return Engine.open(model, known, { processor: 'cpu', threads: 1, wasmFolder });
    }
  }

  private labelsOf(model: ModelData, loaded: Loaded, notes: string[]): LabelSet {
    const labels = loaded.labels ?? model.hints.labels;
    if (labels) return labels;
    notes.push(
      'The model does not name its classes: open or drop a text file with one name per line.',
    );
    return numberedLabels(loaded.numClasses ?? 256);
  }

  private async offerGpu(): Promise<void> {
    const adapter = await gpu()
      ?.requestAdapter()
      .catch(() => null);
    if (!adapter) return;
    page.processor.querySelector<HTMLOptionElement>('[value="gpu"]')!.disabled = false;
    // A GPU that the CPU imitates is slower than the CPU itself.
    if (!adapter.info?.isFallbackAdapter) page.processor.value = 'gpu';
  }

  private say(note: string): void {
    page.note.textContent = note;
  }
}

interface Gpu {
  requestAdapter: () => Promise<{ info?: { isFallbackAdapter?: boolean } } | null>;
}

/** WebGPU, in the browsers that have it. */
function gpu(): Gpu | undefined {
  return (navigator as { gpu?: Gpu }).gpu;
}
