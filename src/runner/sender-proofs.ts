/**
 * For how long a mail waits for the proof of its sender while the DNS does not say (`authentication.dns_failed`): it holds
 * the conversation that its sender named, so not for as long as for what is ours to mend. Then it counts as not proven.
 */
import { undecided } from '../mail/authentication.ts';
import type { Authentication } from '../mail/authentication.ts';
import type { ParsedEmail } from '../mail/email.ts';
import { MillraceError } from '../platform/errors.ts';
import { createTries } from './tries.ts';

/** With the stage's backoff about a minute. */
export const MAX_LOOKS = 8;

export interface Proof {
  readonly authentication: Authentication;
  /** False where the DNS has not said for so long that nobody waits any more. */
  readonly isDecided: boolean;
}

export interface SenderProofs {
  /** Whether the mail has waited for its proof before. */
  readonly isLookedFor: (seqNum: number) => boolean;
  /** @throws MillraceError `authentication.dns_failed` (transient) while it is worth another look; what `authenticate` throws */
  prove(
    mail: { seqNum: number; email: ParsedEmail },
    authenticate: () => Promise<Authentication>,
  ): Promise<Proof>;
}

/** Counts for one inbox. A restart begins anew. */
export function createSenderProofs(): SenderProofs {
  const looks = createTries(MAX_LOOKS);
  return {
    isLookedFor: looks.has,
    async prove({ seqNum, email }, authenticate) {
      try {
        const authentication = await authenticate();
        looks.end(seqNum);
        return { authentication, isDecided: true };
      } catch (error) {
        const isInDoubt = error instanceof MillraceError && error.code === 'authentication.dns_failed';
        if (!isInDoubt || looks.mayTryAgain(seqNum)) throw error;
        return { authentication: undecided(email), isDecided: false };
      }
    },
  };
}
