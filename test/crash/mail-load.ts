/**
 * The load of the crash matrix: a few conversations at a time, each a person (and now and then a machine) who
 * writes the next mail when the one before was accepted. Webhooks come in twos, are repeated while the answer is no
 * 2xx, as Svix does but faster, and some come once more later.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { plainMail } from '../e2e/mail.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { DOMAIN } from './crash-world.ts';
import type { SentMail } from './tally.ts';

export interface MailLoad {
  /** Every mail that the daemon was told of and that was accepted or given up. */
  readonly mails: readonly SentMail[];
  /** Ends after the mail that each conversation is at, and one more; resolves when all were accepted. */
  end(): Promise<void>;
}

export interface MailLoadOptions {
  /** Whose mails these are: the beginning of their ids. */
  readonly label: string;
  readonly inbox: string;
}

const CONVERSATIONS = 3;
/** A person's mails of one conversation beyond this would meet the cap on replies to a thread: then the next one begins. */
const MAX_MAILS = 25;
/** Between two mails of a conversation: so that a kill meets some mail, not thousands. */
const PACE_MS = 25;
/** Every so many, a mail is a machine's, and a webhook is posted again after it was accepted. */
const MACHINE_EVERY = 5;
const REPEAT_EVERY = 4;
const RETRY_MS = 100;
const RETRIES = 600;

export function startMailLoad(resend: ResendStandIn, { label, inbox }: MailLoadOptions): MailLoad {
  const mails: SentMail[] = [];
  const ending = new AbortController();

  async function write(conversation: string, number: number): Promise<void> {
    const id = `${conversation}-${number}`;
    const isOwedAnswer = number % MACHINE_EVERY !== MACHINE_EVERY - 1;
    const emailId = randomUUID();
    const raw = plainMail({
      id,
      to: `${inbox}@${DOMAIN}`,
      from: `A person <person@${conversation}.example>`,
      text: id,
      headers: [
        `References: <${conversation}@sender.example>`,
        ...(isOwedAnswer ? [] : ['Auto-Submitted: auto-replied']),
      ],
    });
    const { svixId, statuses } = await resend.deliver(raw, {
      emailId,
      copies: 1 + (number % 2),
      retryDelaysMs: Array<number>(RETRIES).fill(RETRY_MS),
    });
    const isAccepted = statuses.some((status) => status === 200);
    mails.push({ id, emailId, conversation, isOwedAnswer, isAccepted });
    if (number % REPEAT_EVERY === 0) await resend.redeliver(svixId);
  }

  /** One conversation after another, so that work comes for as long as a kill is waited for. */
  async function converse(index: number): Promise<void> {
    let written = 0;
    const writeNext = async (): Promise<void> => {
      const number = written % MAX_MAILS;
      await write(`${label}-${index}-${Math.floor(written / MAX_MAILS)}`, number);
      written++;
    };
    while (!ending.signal.aborted) {
      await writeNext();
      await pause(PACE_MS);
    }
    // One that is surely written after the restart and owed an answer, so that there is always something to answer.
    if (written % MACHINE_EVERY === MACHINE_EVERY - 1) written++;
    await writeNext();
  }

  const conversations = Promise.all(Array.from({ length: CONVERSATIONS }, (_, index) => converse(index)));
  return {
    mails,
    async end() {
      ending.abort();
      await conversations;
    },
  };
}
