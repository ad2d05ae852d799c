/** The local mailbox in place of Resend: once for each key, whatever happens around it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createMailboxOutbound } from '../../src/outbox/mailbox-outbound.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { readBlob, writeBlob } from '../../src/streams/blob.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { mailboxRecordSchema, parseJsonRecord } from '../../src/streams/records.ts';
import type { MailboxRecord } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';

const log = createLog('silent');
const clock = systemClock;
const { signal } = new AbortController();
let directory: string;
let store: StreamStore;

const open = () => openLocalStore({ clock, log }, { directory, retentionFor: () => 'forever' });

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-mailbox-'));
  store = await open();
});

afterEach(async () => {
  await store.close();
  await rm(directory, { recursive: true });
});

const requestOf = (text: string): ProviderRequest => ({
  from: 'reverser@agent.example',
  to: 'ann@sender.example',
  subject: 'Re: Hi',
  text,
  headers: { 'In-Reply-To': '<m1@sender.example>' },
});

async function mailbox(): Promise<MailboxRecord[]> {
  const { records } = await store.stream('mailbox').read({ fromSeqNum: 0 });
  return records.map((record) => parseJsonRecord(mailboxRecordSchema, record));
}

describe('the mailbox as a provider', () => {
  it('looks back as far as it remembers keys, and no further', async () => {
    const first = createMailboxOutbound({ store, clock, log });
    const sent = [];
    for (const key of ['a', 'b', 'c', 'd']) sent.push(await first.send(requestOf(key), key, signal));
    const readFrom: number[] = [];
    const seen: StreamStore = {
      ...store,
      stream(name) {
        const stream = store.stream(name);
        const read: typeof stream.read = (options) => {
          readFrom.push(options.fromSeqNum);
          return stream.read(options);
        };
        return { ...stream, read };
      },
    };
    const second = createMailboxOutbound({ store: seen, clock, log }, { maxKeys: 2 });
    expect(await second.send(requestOf('c'), 'c', signal)).toEqual(sent[2]);
    expect(await second.send(requestOf('a'), 'a', signal)).not.toEqual(sent[0]);
    expect(await mailbox()).toHaveLength(5);
    expect(Math.min(...readFrom)).toBe(2);
  });

  it('keeps the request as it is', async () => {
    const { providerId } = await createMailboxOutbound({ store, clock, log }).send(
      requestOf('one'),
      'k1',
      signal,
    );
    expect(await mailbox()).toMatchObject([{ idempotencyKey: 'k1', providerId, request: requestOf('one') }]);
  });

  it('gives the same key the same answer and adds nothing, one after another and at once', async () => {
    const outbound = createMailboxOutbound({ store, clock, log });
    const keys = ['a', 'b', 'a', 'b', 'a', 'c', 'a'];
    const answers = await Promise.all(keys.map((key) => outbound.send(requestOf(key), key, signal)));
    const again = await outbound.send(requestOf('a'), 'a', signal);
    expect((await mailbox()).map(({ idempotencyKey }) => idempotencyKey)).toEqual(['a', 'b', 'c']);
    expect(new Set(answers.map(({ providerId }) => providerId)).size).toBe(3);
    expect(again).toEqual(answers[0]);
  });

  it('knows its keys again after a restart', async () => {
    const before = await createMailboxOutbound({ store, clock, log }).send(requestOf('one'), 'k1', signal);
    await store.close();
    store = await open();
    const after = await createMailboxOutbound({ store, clock, log }).send(requestOf('one'), 'k1', signal);
    expect(after).toEqual(before);
    expect(await mailbox()).toHaveLength(1);
  });

  it('sees what another writer has sent meanwhile', async () => {
    const [one, other] = [
      createMailboxOutbound({ store, clock, log }),
      createMailboxOutbound({ store, clock, log }),
    ];
    const keys = Array.from({ length: 20 }, (_, index) => `k${Math.floor(index / 2)}`);
    await Promise.all(keys.map((key, index) => (index % 2 ? one : other).send(requestOf(key), key, signal)));
    const sent = (await mailbox()).map(({ idempotencyKey }) => idempotencyKey);
    expect(sent.toSorted()).toEqual([...new Set(keys)].toSorted());
  });

  it('goes on after a send that failed', async () => {
    const outbound = createMailboxOutbound({ store, clock, log });
    const aborted = AbortSignal.abort(new Error('stop'));
    await expect(outbound.send(requestOf('one'), 'k1', aborted)).rejects.toThrow('stop');
    await outbound.send(requestOf('one'), 'k1', signal);
    expect(await mailbox()).toHaveLength(1);
  });

  it('puts a large request where the runner has put it, once', async () => {
    const request = requestOf('x'.repeat(2_000_000));
    const bytes = Buffer.from(JSON.stringify(request));
    await writeBlob(store.stream('request/k1'), bytes);
    const tail = await store.stream('request/k1').tail();
    await createMailboxOutbound({ store, clock, log }).send(request, 'k1', signal);
    const [record] = await mailbox();
    const pointer = 'blob' in record!.request ? record!.request.blob : undefined;
    expect(Buffer.from(await readBlob(store, pointer!)).equals(bytes)).toBe(true);
    expect(await store.stream('request/k1').tail()).toBe(tail);
  });

  it('puts a large request that has waited there again, so that it lasts as long as its record', async () => {
    const request = requestOf('x'.repeat(2_000_000));
    const bytes = Buffer.from(JSON.stringify(request));
    await writeBlob(store.stream('request/k1'), bytes);
    const tail = await store.stream('request/k1').tail();
    const later = { ...clock, nowMs: () => clock.nowMs() + 60 * 86_400_000 };
    await createMailboxOutbound({ store, clock: later, log }).send(request, 'k1', signal);
    expect(await store.stream('request/k1').tail()).toBe(2 * tail);
  });
});
