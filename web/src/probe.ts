/** Names the class under the pointer or the finger; with the arrow keys, under a point of its own. */

import { page } from './page';

/** The name of the class at a pixel of the picture; null where there is no picture. */
export type NameAt = (x: number, y: number) => string | null;

/** How far an arrow key goes, in parts of the picture. */
const STEP = 1 / 24;

/** The pixel of the picture under a point of the window; null beside the picture. */
export function pixelAt(event: { clientX: number; clientY: number }): [number, number] | null {
  const area = shownArea();
  const across = (event.clientX - area.left) / area.width;
  const x = isMirrored() ? 1 - across : across;
  const y = (event.clientY - area.top) / area.height;
  if (x < 0 || x >= 1 || y < 0 || y >= 1) return null;
  return [Math.floor(x * page.canvas.width), Math.floor(y * page.canvas.height)];
}

/** `onEnter` hears of the pixel that the keyboard's pointer is on, and whether Shift is held. */
export function startProbe(
  nameAt: NameAt,
  onEnter: (pixel: [number, number], alone: boolean) => void,
): void {
  const { canvas, probe } = page;
  let point = { x: 0.5, y: 0.5 };

  /** Show the name at a point of the picture, in parts of its width and height. */
  const show = (x: number, y: number) => {
    const pixel = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)] as const;
    const name = x >= 0 && x < 1 && y >= 0 && y < 1 ? nameAt(...pixel) : null;
    probe.hidden = name === null;
    if (name === null) return;
    if (probe.textContent !== name) probe.textContent = name;
    const area = shownArea();
    const screen = page.screen.getBoundingClientRect();
    const left = area.left - screen.left + (isMirrored() ? 1 - x : x) * area.width;
    const half = probe.offsetWidth / 2;
    probe.style.setProperty('--shift', `${inside(left, half, screen.width - half) - left}px`);
    probe.style.left = `${left}px`;
    probe.style.top = `${area.top - screen.top + y * area.height}px`;
  };
  const hide = () => (probe.hidden = true);

  const follow = (event: PointerEvent) => {
    probe.dataset.pointer = event.pointerType;
    const area = shownArea();
    const across = (event.clientX - area.left) / area.width;
    show(isMirrored() ? 1 - across : across, (event.clientY - area.top) / area.height);
  };
  canvas.addEventListener('pointermove', follow);
  canvas.addEventListener('pointerdown', follow);
  canvas.addEventListener('pointerleave', hide);
  canvas.addEventListener('blur', hide);
  canvas.addEventListener('keydown', (event) => {
    const [dx, dy] = ARROWS[event.key] ?? [0, 0];
    if (event.key === 'Escape') hide();
    if (event.key === 'Enter' && !probe.hidden) {
      onEnter(
        [Math.floor(point.x * canvas.width), Math.floor(point.y * canvas.height)],
        event.shiftKey,
      );
      show(point.x, point.y);
    }
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

/** Where on the screen the picture is: as large as its element allows, in its middle. */
function shownArea(): { left: number; top: number; width: number; height: number } {
  const { canvas } = page;
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const [width, height] = [canvas.width * scale, canvas.height * scale];
  return {
    left: box.left + (box.width - width) / 2,
    top: box.top + (box.height - height) / 2,
    width,
    height,
  };
}

function inside(value: number, least: number, most: number): number {
  return Math.max(least, Math.min(value, most));
}

function isMirrored(): boolean {
  return page.screen.dataset.mirrored === 'true';
}
