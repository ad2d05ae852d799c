/**
 * Mail that others wrote, through the whole daemon: every message of the corpus reaches the reverser's inbox and
 * ends answered, or not answered with a reason; none is parked, and nothing crashes.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noReplyReason } from '../../src/mail/guard.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { replyRecipient } from '../../src/mail/recipient.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { corpusFiles, MISSING_CORPUS } from '../mail/corpus.ts';
import type { CorpusFile } from '../mail/corpus.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import type { Daemon } from './daemon.ts';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const IN_FLIGHT = 8;

interface Outcome {
  outcome?: string;
  reason?: string | null;
  facts?: { emailId?: string };
}

describe('the corpus', { timeout: 180_000 }, () => {
  it('goes through the daemon', async (context) => {
    const files = corpusFiles('**/*.eml');
    context.skip(files.length === 0, MISSING_CORPUS);
    await using directory = await temporaryDirectory();
    const port = await freePort();
    const resend = await spawnResendStandIn({
      apiKey: 're_corpus',
      webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: SECRET },
    });
    const daemon = await startDaemon({
      MAIL_DOMAIN: 'agents.example',
      RESEND_API_KEY: 're_corpus',
      RESEND_BASE_URL: resend.url,
      RESEND_WEBHOOK_SECRET: SECRET,
      DATA_DIR: join(directory.path, 'data'),
      PORT: String(port),
      LOG_LEVEL: 'error',
    });
    try {
      const idOf = new Map<string, CorpusFile>();
      const waiting = [...files];
      const deliver = async (): Promise<void> => {
        for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
          const { status, emailId } = await resend.deliver(file.bytes(), {
            receivedFor: ['reverser@agents.example'],
          });
          expect([file.name, status]).toEqual([file.name, 200]);
          idOf.set(emailId, file);
        }
      };
      await Promise.all(Array.from({ length: IN_FLIGHT }, deliver));

      await expect
        .poll(async () => (await finalOutcomes(daemon, 'runs/reverser')).length, {
          timeout: 120_000,
          interval: 250,
        })
        .toBe(files.length);
      const outcomes = await finalOutcomes(daemon, 'runs/reverser');
      const wrong = [];
      for (const { outcome, reason, facts } of outcomes) {
        const file = idOf.get(facts?.emailId ?? '')!;
        const expected = await expectedOf(file);
        const isAsExpected =
          expected === 'answered' ? outcome === 'done' || reason === 'empty-reply' : reason === expected;
        if (!isAsExpected) wrong.push({ file: file.name, outcome, reason, expected });
      }
      expect(wrong).toEqual([]);
      const answered = outcomes.filter(({ outcome }) => outcome === 'done').length;
      await expect
        .poll(async () => (await finalOutcomes(daemon, 'sent')).length, { timeout: 60_000, interval: 250 })
        .toBe(answered);
      expect((await finalOutcomes(daemon, 'sent')).filter(({ outcome }) => outcome !== 'done')).toEqual([]);
      expect(await resend.accepted()).toHaveLength(answered);
      expect(answered).toBeGreaterThan(files.length / 2);
      expect(await daemon.stop()).toBe(0);
    } finally {
      await daemon.kill();
      await resend.stop();
    }
  });
});

async function finalOutcomes(daemon: Daemon, journal: string): Promise<Outcome[]> {
  const store = await openLocalStoreReadOnly({ clock: systemClock }, { directory: daemon.dataDir });
  try {
    const { records } = await store.stream(journal).read({ fromSeqNum: 0 });
    const parsed = records.map(({ body }) => JSON.parse(Buffer.from(body).toString()) as Outcome);
    return parsed.filter(({ outcome }) => outcome !== undefined && outcome !== 'deferred');
  } finally {
    await store.close();
  }
}

/** What the guard says of the message itself: the reason for silence, or that it is to be answered. */
async function expectedOf(file: CorpusFile): Promise<string> {
  const email = await parseMessage(file.bytes());
  const domains = ['agents.example'];
  const reason = noReplyReason(email, { domains, address: 'reverser@agents.example' });
  return reason ?? (replyRecipient(email, domains) === null ? 'no-recipient' : 'answered');
}
