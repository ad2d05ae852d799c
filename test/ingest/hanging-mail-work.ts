/** Work on mail that hangs over one, as over a regular expression that nobody foresaw, and says so before. */
import { writeSync } from 'node:fs';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import type { MailWork } from '../../src/mail/mail-work.ts';

/** In the text of the mail that it hangs over. */
export const POISON = 'poison';
/** The provider's id of that mail. */
export const POISONED = 'b3c7f2aa-0000-4000-8000-000000000001';
export const HANGS = 'hangs';

export const hangingMailWork: MailWork = {
  ...mailWorkInPlace,
  parseMessage(raw) {
    if (Buffer.from(raw).includes(POISON)) {
      writeSync(1, `${HANGS}\n`);
      // Takes years.
      /^(?:a+)+$/.test(`${'a'.repeat(80)}b`);
    }
    return mailWorkInPlace.parseMessage(raw);
  },
};
