/** How pictures are drawn now; `controls.ts` and the legend set it. */

import type { Look } from './draw';
import { page } from './page';

export const look: Look & { hidden: Set<number> } = {
  effect: 'overlay',
  opacity: 0.55,
  hidden: new Set(),
  dropped: null,
  threshold: 0,
  background: page.colour.value,
};
