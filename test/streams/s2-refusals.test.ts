/**
 * Refusals that make no sense: 412 to an append that set no condition, 400 to one that is well-formed. A server that
 * is restarted gives them, or a proxy in between. Each ended the daemon, or parked a mail for good.
 */
import { describe, expect, test, vi } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { writeBlob } from '../../src/streams/blob.ts';
import type { OutcomeRecord } from '../../src/streams/journal-records.ts';
import { createMembership } from '../../src/streams/membership.ts';
import { streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Outcome } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import type { Fate, ProxiedRequest } from './faulty-proxy.ts';
import { useS2BehindProxy } from './s2-behind-proxy.ts';
import { s2Binary } from './s2-lite.ts';
import { numbered } from './stage-fixture.ts';
import { readAll, readBodies, text } from './store-reading.ts';

const log = createLog('silent');
const WRONG_NUMBER = { status: 412, body: '{"seq_num_mismatch":7}' };
const WRONG_TOKEN = { status: 412, body: '{"fencing_token_mismatch":"theirs"}' };
const UNAVAILABLE = { code: 'streams.unavailable', kind: 'transient' };

describe.skipIf(!s2Binary())('with s2 lite behind a proxy that refuses', { timeout: 60_000 }, () => {
  const s2 = useS2BehindProxy();
  const { freshName, freshStream, appendsMeet } = s2;

  /** The first `count` appends to this stream meet this, and nothing else does. */
  function appendsTo(name: string, count: number, fate: Fate): void {
    const isOurs = ({ isAppend, path }: ProxiedRequest): boolean =>
      isAppend && path.includes(`/${encodeURIComponent(name)}/`);
    let met = 0;
    s2.proxy.decide((request) => (isOurs(request) && met++ < count ? fate : 'forward'));
  }

  test.each([WRONG_NUMBER, WRONG_TOKEN, { status: 412 }, { status: 412, body: '{"message":"no"}' }])(
    '%j to an append without a condition may be tried again',
    async (answer) => {
      const { stream } = await freshStream();
      appendsMeet(answer);
      await expect(stream.append([text('a')])).rejects.toMatchObject(UNAVAILABLE);
      await stream.append([text('a')]);
      expect(await readBodies(stream)).toEqual(['first', 'a']);
    },
  );

  test('so may one that names a condition which was not set, or what was set as what is wanted', async () => {
    const { stream } = await freshStream();
    const append = (): Promise<unknown> => stream.append([text('a')], { matchSeqNum: 1 });
    for (const answer of [WRONG_TOKEN, { status: 412, body: '{"seq_num_mismatch":1}' }]) {
      appendsMeet(answer);
      await expect(append()).rejects.toMatchObject(UNAVAILABLE);
    }
    appendsMeet(WRONG_NUMBER);
    await expect(append()).rejects.toMatchObject({ code: 'streams.seq_num_mismatch', expectedSeqNum: 7 });
  });

  interface Work {
    source: string;
    journal: string;
    handle: (record: StreamRecord) => Promise<Outcome>;
  }

  /** The outcomes of a record that is worked on while appends meet what `meets` says. */
  async function outcomesOf(work: Work, meets: () => void): Promise<Partial<OutcomeRecord>[]> {
    await s2.store.stream(work.source).append([numbered(1)]);
    const retry = { concurrency: 1, maxAttempts: 9, backoff: { baseMs: 1, maxMs: 5 } };
    const stage = createStage({ store: s2.store, clock, log }, { name: 'test', ...work, ...retry });
    const stop = new AbortController();
    meets();
    const running = stage.run(stop.signal);
    const outcomes = async (): Promise<Partial<OutcomeRecord>[]> =>
      (await readAll(s2.store.stream(work.journal)))
        .map(({ body }) => JSON.parse(Buffer.from(body).toString()) as Partial<OutcomeRecord>)
        .filter(({ outcome }) => outcome !== undefined);
    const isSettled = async (): Promise<void> => expect(await outcomes()).toContainEqual(final);
    await Promise.race([running, vi.waitFor(isSettled, { timeout: 20_000 })]);
    const all = await outcomes();
    stop.abort();
    await running;
    return all;
  }
  const final = expect.objectContaining({ outcome: expect.stringMatching(/^(done|dead-letter)$/u) });

  test('a mail whose content was refused for nothing is put off, and then done', async () => {
    const [source, journal, mail] = [freshName(), freshName(), freshName()];
    const handle = async (): Promise<Outcome> => {
      await writeBlob(s2.store.stream(mail), Buffer.from('its content'));
      return { kind: 'done' };
    };
    const outcomes = await outcomesOf({ source, journal, handle }, () => appendsTo(mail, 2, WRONG_NUMBER));
    expect(outcomes).toMatchObject([
      { outcome: 'deferred', reason: 'streams.unavailable' },
      { outcome: 'done', attempts: 2 },
    ]);
    expect(await readBodies(s2.store.stream(mail))).toEqual(['its content']);
  });

  test.each([{ status: 400 }, { status: 412 }])('a stage outlives %j to its journal', async (answer) => {
    const [source, journal, target] = [freshName(), freshName(), freshName()];
    const outputs = [{ stream: target, record: text('its output') }];
    const handle = (): Promise<Outcome> => Promise.resolve({ kind: 'done', outputs });
    let appends = 0;
    const meets = (): void =>
      s2.proxy.decide(({ isAppend, path }) => {
        const isFence = isAppend && path.includes(encodeURIComponent(journal)) && appends === 0;
        if (isAppend) appends++;
        return isAppend && !isFence && appends % 3 > 0 ? answer : 'forward';
      });
    expect(await outcomesOf({ source, journal, handle }, meets)).toMatchObject([{ outcome: 'done' }]);
    expect(await readBodies(s2.store.stream(target))).toEqual(['its output']);
  });

  test.each([{ status: 400 }, WRONG_NUMBER])(
    'a process whose heartbeats meet %j goes on, and is there again afterwards',
    async (answer) => {
      const processes = { own: null, isGone: () => false };
      const membership = createMembership({ store: s2.store, clock, log, processes });
      const stop = new AbortController();
      appendsTo(streamNames.members, 1, answer);
      const running = membership.run(stop.signal);
      const isThere = (): void => expect(membership.isCurrent()).toBe(true);
      await Promise.race([running, vi.waitFor(isThere, { timeout: 20_000 })]);
      isThere();
      stop.abort();
      await running;
    },
  );
});
