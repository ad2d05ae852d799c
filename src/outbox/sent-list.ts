/**
 * What Resend has sent, newest first and without a gap, as far back as somebody asked. It is listed once for all who look
 * for something in it: after an outage of a day thousands do, and each of them adds the pages that are new alone.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { fingerprint } from '../streams/settled-keys.ts';

/** As Resend lists it. */
export interface ListedMail {
  readonly id: string;
  readonly to: readonly string[];
  readonly subject: string;
  readonly created_at: string;
}

export interface SentMail {
  readonly id: string;
  readonly to: readonly string[];
  /** A fingerprint: there may be many, and long ones. */
  readonly subject: string;
  readonly createdMs: number;
  /** Where somebody has asked for them. */
  tags?: readonly { readonly name: string; readonly value: string }[];
}

/** The page behind this mail, or the first one. */
export type ListPage = (after: string | undefined) => Promise<{ data: ListedMail[]; has_more: boolean }>;

export interface SentList {
  /**
   * What was sent since, and was listed after this was called.
   * @throws MillraceError `outbox.outcome_unknown` (permanent) where that is too much, or what `listPage` throws
   */
  since(sinceMs: number, listPage: ListPage): Promise<readonly SentMail[]>;
}

/** For one who asks: more mail than this that is not listed yet, and the search gives up. */
const MAX_PAGES = 100;
/** For all together. */
const MAX_LISTED = 100_000;
/** A list that nobody has asked for meanwhile begins anew. */
const KEPT_MS = 3_600_000;
/** So much older than the newest, and no other can come before it any more: what is younger is listed again. */
const SETTLING_MS = 60_000;

export function createSentList({ clock }: { clock: Clock }): SentList {
  let mails: SentMail[] = [];
  /** Nothing was sent before the last of them. */
  let isWhole = false;
  let listedAtMs = -Infinity;
  let turn: Promise<unknown> = Promise.resolve();

  async function listNew(sinceMs: number, nextPage: ListPage): Promise<void> {
    const atMs = clock.monotonicMs();
    const settled = settledOf(mails);
    const [newest] = settled;
    const fresh: SentMail[] = [];
    for (;;) {
      const page = await nextPage(fresh.at(-1)?.id);
      const known = page.data.findIndex(({ id }) => id === newest?.id);
      fresh.push(...(known < 0 ? page.data : page.data.slice(0, known)).map(sentMail));
      if (known >= 0) {
        isWhole &&= fresh.length + settled.length <= MAX_LISTED;
        mails = [...fresh, ...settled].slice(0, MAX_LISTED);
        break;
      }
      if (!page.has_more || (fresh.at(-1)?.createdMs ?? Infinity) < (newest?.createdMs ?? sinceMs)) {
        mails = fresh;
        isWhole = !page.has_more;
        break;
      }
    }
    listedAtMs = atMs;
  }

  async function cover(of: { sinceMs: number; askedAtMs: number; listPage: ListPage }): Promise<void> {
    const { sinceMs, askedAtMs, listPage } = of;
    let pages = 0;
    const nextPage: ListPage = (after) => {
      if (++pages > MAX_PAGES) throw unknownOutcome('it has sent too many since to look');
      return listPage(after);
    };
    if (clock.monotonicMs() - listedAtMs > KEPT_MS) mails = [];
    // Who waited for another's turn finds listed what was sent before it asked.
    if (mails.length === 0 || listedAtMs < askedAtMs) await listNew(sinceMs, nextPage);
    while (!isWhole && (mails.at(-1)?.createdMs ?? -Infinity) >= sinceMs) {
      if (mails.length >= MAX_LISTED) throw unknownOutcome('it has sent too many since to look');
      const page = await nextPage(mails.at(-1)!.id);
      mails.push(...page.data.map(sentMail));
      isWhole = !page.has_more;
    }
  }

  return {
    async since(sinceMs, listPage) {
      const askedAtMs = clock.monotonicMs();
      const mine = turn.then(() => cover({ sinceMs, askedAtMs, listPage }));
      turn = mine.catch(() => undefined);
      await mine;
      const older = mails.findIndex(({ createdMs }) => createdMs < sinceMs);
      return mails.slice(0, older < 0 ? mails.length : older);
    },
  };
}

function settledOf(mails: readonly SentMail[]): readonly SentMail[] {
  const first = mails.findIndex(({ createdMs }) => createdMs < mails[0]!.createdMs - SETTLING_MS);
  return first < 0 ? [] : mails.slice(first);
}

function sentMail({ id, to, subject, created_at: createdAt }: ListedMail): SentMail {
  return { id, to, subject: fingerprint(subject), createdMs: Date.parse(createdAt) };
}

export function unknownOutcome(why: string): MillraceError {
  return new MillraceError(
    'permanent',
    'outbox.outcome_unknown',
    `it is not known whether Resend has sent this mail, and ${why}`,
    { hint: 'Look for the mail in Resend. If it is not there, redrive the dead letter with --not-sent.' },
  );
}
