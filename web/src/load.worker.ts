/** The worker that loads models and the runtime, so that the page itself never waits for them. */

import type { LoadAnswer, LoadQuestion } from './load';
import { readBytes, readModule } from './read';

/** Progress is told this often, so that telling it costs nothing. */
const EVERY_MS = 100;

self.onmessage = async ({ data }: MessageEvent<LoadQuestion>) => {
  const { id, kind, ...wanted } = data;
  let toldAt = 0;
  const onRead = (loaded: number, total: number) => {
    const now = performance.now();
    if (now - toldAt < EVERY_MS) return;
    toldAt = now;
    reply({ id, loaded, total });
  };
  try {
    if (kind === 'module') {
      reply({ id, module: await readModule(wanted, onRead) });
    } else {
      const bytes = await readBytes(wanted, onRead);
      const sha256 = await hash(bytes);
      reply({ id, bytes, sha256 }, [bytes.buffer]);
    }
  } catch (error) {
    const { name, message } = error as Error;
    reply({ id, error: message, isCompileError: name === 'CompileError' });
  }
};

function reply(answer: LoadAnswer, transfer: Transferable[] = []): void {
  self.postMessage(answer, { transfer });
}

/** Without https there is none to compare with. */
async function hash(data: Uint8Array<ArrayBuffer>): Promise<string | null> {
  if (!self.crypto.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
