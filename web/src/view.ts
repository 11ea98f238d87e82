/** How the picture lies on the screen: zoom and pan, and the picture before beside it. */

import type { Comparison } from './address';
import { page } from './page';

const MOST_ZOOM = 8;
const STEP = 1.5;
/** Fingers and mice tremble: a press that moves less than this is a click. */
const CLICK_PX = 6;

let zoom = 1;
let pan = { x: 0, y: 0 };

/** Zoom by a factor around a point of the window; the middle of the picture unless given. */
export function zoomBy(factor: number, at?: { clientX: number; clientY: number }): void {
  const box = page.canvas.parentElement!.getBoundingClientRect();
  const next = Math.min(Math.max(zoom * factor, 1), MOST_ZOOM);
  const x = at ? at.clientX - box.left - box.width / 2 : 0;
  const y = at ? at.clientY - box.top - box.height / 2 : 0;
  // What lies under the point stays under it.
  pan = { x: x - ((x - pan.x) * next) / zoom, y: y - ((y - pan.y) * next) / zoom };
  zoom = next;
  place();
}

export function zoomIn(): void {
  zoomBy(STEP);
}

export function zoomOut(): void {
  zoomBy(1 / STEP);
}

export function zoomFit(): void {
  zoom = 1;
  pan = { x: 0, y: 0 };
  place();
}

function place(): void {
  const box = page.canvas.parentElement!.getBoundingClientRect();
  const most = { x: ((zoom - 1) * box.width) / 2, y: ((zoom - 1) * box.height) / 2 };
  pan.x = Math.min(Math.max(pan.x, -most.x), most.x);
  pan.y = Math.min(Math.max(pan.y, -most.y), most.y);
  const across = page.screen.dataset.mirrored === 'true' ? -pan.x : pan.x;
  for (const canvas of [page.canvas, page.before]) {
    canvas.style.transform = zoom === 1 ? '' : `translate(${across}px, ${pan.y}px) scale(${zoom})`;
  }
  page.screen.dataset.zoomed = String(zoom > 1);
}

/** Show the picture before the network saw it: not, under a line that moves, or beside. */
export function compare(how: Comparison): void {
  page.screen.dataset.compare = how;
  page.divider.hidden = how !== 'slider';
  zoomFit();
}

/** Draw the picture before; only where it is seen. */
export function showBefore(picture: ImageBitmap): void {
  if (page.screen.dataset.compare === 'off') return;
  const { before } = page;
  if (before.width !== picture.width || before.height !== picture.height) {
    before.width = picture.width;
    before.height = picture.height;
  }
  const context = before.getContext('2d')!;
  context.globalCompositeOperation = 'copy';
  context.drawImage(picture, 0, 0);
}

/** Listen to wheel, fingers and mouse on the picture; `onClick` hears of presses that stay. */
export function startView(onClick: (event: PointerEvent) => void): void {
  const fingers = new Map<number, PointerEvent>();
  let begin: PointerEvent | null = null;
  let moved = false;
  let span = 0;

  page.screen.addEventListener(
    'wheel',
    (event) => {
      if (!event.ctrlKey && zoom === 1) return; // the page scrolls; pinching a touchpad is ctrl
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event);
    },
    { passive: false },
  );
  for (const canvas of [page.canvas, page.before]) {
    canvas.addEventListener('pointerdown', (event) => {
      fingers.set(event.pointerId, event);
      if (fingers.size === 1) [begin, moved] = [event, false];
      else [moved, span] = [true, spanOf(fingers)];
      if (zoom > 1 || fingers.size > 1) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      fingers.set(event.pointerId, event);
      if (
        begin &&
        Math.hypot(event.clientX - begin.clientX, event.clientY - begin.clientY) > CLICK_PX
      ) {
        moved = true;
      }
      if (fingers.size === 2) {
        const now = spanOf(fingers);
        zoomBy(now / span, middleOf(fingers));
        span = now;
      } else if (zoom > 1 && moved) {
        pan = { x: pan.x + event.clientX - last.clientX, y: pan.y + event.clientY - last.clientY };
        place();
      }
    });
    canvas.addEventListener('pointerup', (event) => {
      if (!moved && fingers.size === 1 && canvas === page.canvas) onClick(event);
      fingers.delete(event.pointerId);
    });
    canvas.addEventListener('pointercancel', (event) => fingers.delete(event.pointerId));
  }
  page.divider.addEventListener('input', () => {
    page.screen.style.setProperty('--divide', `${page.divider.value}%`);
  });
  new ResizeObserver(place).observe(page.screen);
}

function spanOf(fingers: Map<number, PointerEvent>): number {
  const [a, b] = [...fingers.values()];
  return Math.max(1, Math.hypot(a!.clientX - b!.clientX, a!.clientY - b!.clientY));
}

function middleOf(fingers: Map<number, PointerEvent>) {
  const [a, b] = [...fingers.values()];
  return { clientX: (a!.clientX + b!.clientX) / 2, clientY: (a!.clientY + b!.clientY) / 2 };
}
