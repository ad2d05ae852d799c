/**
 * Which streams a stage works on, by the name that a person gives it: the stage itself, or for the runner an inbox.
 */
import { toolInboxNames } from '../mail/address.ts';
import { MillraceError } from '../platform/errors.ts';
import { streamNames } from '../streams/records.ts';

/** A stage, by what it reads and where it notes what became of it. */
export interface StageStreams {
  readonly stage: 'receive' | 'runner' | 'outbox';
  /** For the runner. */
  readonly inbox: string | null;
  readonly source: string;
  readonly journal: string;
}

/**
 * The streams of a stage. An inbox need not be served any more.
 * @throws MillraceError `admin.invalid_request` (invalid) for what can be the name of no inbox
 */
export function stageStreams(which: { stage: 'receive' | 'outbox' } | { inbox: string }): StageStreams {
  if ('inbox' in which) {
    const { inbox } = which;
    return {
      stage: 'runner',
      inbox: assertInbox(inbox),
      source: streamNames.inbox(inbox),
      journal: streamNames.runs(inbox),
    };
  }
  return which.stage === 'receive'
    ? { stage: 'receive', inbox: null, source: streamNames.events, journal: streamNames.received }
    : { stage: 'outbox', inbox: null, source: streamNames.outbox, journal: streamNames.sent };
}

/** @throws MillraceError `admin.invalid_request` (invalid) */
export function assertInbox(name: string): string {
  if (toolInboxNames(name).includes(name)) return name;
  throw new MillraceError(
    'invalid',
    'admin.invalid_request',
    `not the name of an inbox: ${JSON.stringify(name.slice(0, 100))}`,
    { hint: 'It is what stands before the @, in lower case and without a tag.' },
  );
}
