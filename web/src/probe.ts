/** Names the class under the pointer or the finger; with the arrow keys, under a point of its own. */

import { page } from './page';

/** The name of the class at a pixel of the picture; null where there is no picture. */
export type NameAt = (x: number, y: number) => string | null;

/** How far an arrow key goes, in parts of the picture. */
const STEP = 1 / 24;

export function startProbe(nameAt: NameAt): void {
  const { canvas, probe } = page;
  let point = { x: 0.5, y: 0.5 };

  const show = (x: number, y: number) => {
    const pixel = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)] as const;
    const name = x >= 0 && x < 1 && y >= 0 && y < 1 ? nameAt(...pixel) : null;
    probe.hidden = name === null;
    if (name === null) return;
    if (probe.textContent !== name) probe.textContent = name;
    const shown = isMirrored() ? 1 - x : x;
    const [box, screen] = [canvas.getBoundingClientRect(), page.screen.getBoundingClientRect()];
    probe.style.left = `${box.left - screen.left + shown * box.width}px`;
    probe.style.top = `${box.top - screen.top + y * box.height}px`;
  };
  const hide = () => (probe.hidden = true);

  const follow = (event: PointerEvent) => {
    probe.dataset.pointer = event.pointerType;
    const box = canvas.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    show(isMirrored() ? 1 - across : across, (event.clientY - box.top) / box.height);
  };
  canvas.addEventListener('pointermove', follow);
  canvas.addEventListener('pointerdown', follow);
  canvas.addEventListener('pointerleave', hide);
  canvas.addEventListener('blur', hide);
  canvas.addEventListener('keydown', (event) => {
    const [dx, dy] = ARROWS[event.key] ?? [0, 0];
    if (event.key === 'Escape') hide();
    if (!dx && !dy) return;
    event.preventDefault();
    const clamp = (value: number) => Math.min(Math.max(value, 0), 0.999);
    const across = isMirrored() ? -dx : dx;
    point = { x: clamp(point.x + across * STEP), y: clamp(point.y + dy * STEP) };
    show(point.x, point.y);
  });
}

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

function isMirrored(): boolean {
  return page.screen.dataset.mirrored === 'true';
}
