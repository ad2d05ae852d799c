/**
 * The example tools. Every exported function is an inbox of its name: mail to `reverser@` your domain comes
 * back reversed. Change one, save, and write to it again.
 */
import type { Settings } from 'millrace';

export { reverser } from './reverser.ts';
export { statistics } from './statistics.tsx';
export { translator } from './translator.ts';

export const settings: Settings = {
  // A text of megabytes takes its time.
  reverser: { timeoutMs: 60_000 },
  translator: { hosts: ['libretranslate.com'], secrets: ['LIBRETRANSLATE_API_KEY'], timeoutMs: 30_000 },
};
