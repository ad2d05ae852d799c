/**
 * The S2 store behind a network that fails: each test is a trap that was seen, with a proxy between the store
 * and a real `s2 lite` that loses answers, cuts connections, hangs, or answers something else.
 */
import { describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import type { ProxiedRequest } from './faulty-proxy.ts';
import { startFollowing } from './follow.contract.ts';
import { useS2BehindProxy } from './s2-behind-proxy.ts';
import { s2Binary } from './s2-lite.ts';
import { readBodies, readSeqNums, text } from './store-reading.ts';

const AMBIGUOUS = { code: 'streams.append_ambiguous', kind: 'transient' };

describe.skipIf(!s2Binary())('with s2 lite behind a proxy that fails', { timeout: 60_000 }, () => {
  const s2 = useS2BehindProxy();
  const { freshStream, appendsMeet, appendsSent } = s2;

  describe('an append whose acknowledgement is lost', () => {
    test('without a condition is ambiguous, and is not repeated in secret', async () => {
      const { stream, direct } = await freshStream();
      const before = appendsSent();
      appendsMeet('lose-answer');
      await expect(stream.append([text('a')])).rejects.toMatchObject(AMBIGUOUS);
      expect(appendsSent() - before).toBe(1);
      expect(await readBodies(direct)).toEqual(['first', 'a']);
    });

    test('with matchSeqNum is acknowledged, and there once', async () => {
      const { stream, direct } = await freshStream();
      appendsMeet('lose-answer');
      const records = [
        { body: 'a', headers: [['key', 'välue']] as const },
        { body: new Uint8Array([0, 255]) },
      ];
      expect(await stream.append(records, { matchSeqNum: 1 })).toEqual({ startSeqNum: 1, endSeqNum: 3 });
      expect(await readSeqNums(direct)).toEqual([0, 1, 2]);
    });

    test('again and again, with matchSeqNum, likewise', async () => {
      const { stream, direct } = await freshStream();
      appendsMeet('cut', 'lose-answer', 'cut', { status: 500 }, { status: 503 });
      await stream.append([text('a')], { matchSeqNum: 1 });
      expect(await readBodies(direct)).toEqual(['first', 'a']);
    });

    test('with matchSeqNum and a token that was replaced since, likewise', async () => {
      const { stream, direct } = await freshStream();
      expect(await stream.fence('mine')).toBe(2);
      let appends = 0;
      s2.proxy.decide(async (request) => {
        if (!request.isAppend) return 'forward';
        if (++appends === 2) await direct.fence('theirs');
        return appends === 1 ? 'lose-answer' : 'forward';
      });
      await stream.append([text('a')], { matchSeqNum: 2, fencingToken: 'mine' });
      expect(await readBodies(direct)).toEqual(['first', 'a']);
    });

    test('a fence with matchSeqNum is settled in the same way', async () => {
      const { stream, direct } = await freshStream();
      appendsMeet('lose-answer');
      expect(await stream.fence('mine', { matchSeqNum: 1 })).toBe(2);
      expect(await direct.tail()).toBe(2);
      appendsMeet('lose-answer');
      await expect(stream.fence('other')).rejects.toMatchObject(AMBIGUOUS);
    });

    test('and did not happen, while another writer took the number: refused', async () => {
      const { stream, direct } = await freshStream();
      let appends = 0;
      s2.proxy.decide(async (request) => {
        if (!request.isAppend) return 'forward';
        if (++appends === 2) await direct.append([text('theirs')]);
        return appends === 1 ? 'cut' : 'forward';
      });
      await expect(stream.append([text('mine')], { matchSeqNum: 1 })).rejects.toMatchObject({
        code: 'streams.seq_num_mismatch',
        expectedSeqNum: 2,
      });
      expect(await readBodies(direct)).toEqual(['first', 'theirs']);
    });

    test('and the store stays away: ambiguous, at last', async () => {
      const hurried = await s2.openStore(s2.proxy.url, { clock: createHurriedClock() });
      const { stream } = await freshStream(hurried);
      s2.proxy.decide(() => 'cut');
      await expect(stream.append([text('a')], { matchSeqNum: 1 })).rejects.toMatchObject(AMBIGUOUS);
    });

    test('ends at once when its signal is aborted', async () => {
      const { stream } = await freshStream(await s2.openStore(s2.proxy.url, { clock: patientClock }));
      s2.proxy.decide(() => 'hang');
      const stopping = new AbortController();
      const appended = stream.append([text('a')], { matchSeqNum: 1, signal: stopping.signal });
      const before = appendsSent();
      await vi.waitFor(() => expect(appendsSent()).toBeGreaterThan(before));
      stopping.abort(new Error('enough'));
      await expect(appended).rejects.toThrow('enough');
    });
  });

  describe('an answer', () => {
    const refusal = (code: string): string => JSON.stringify({ code, message: 'no' });
    test.each([
      [{ status: 401 }, 'streams.unauthorized', 'transient'],
      [{ status: 403, body: refusal('permission_denied') }, 'streams.unauthorized', 'transient'],
      [{ status: 429, body: refusal('rate_limited') }, 'streams.unavailable', 'transient'],
      [{ status: 429, body: refusal('quota') }, 'streams.unavailable', 'transient'],
      [{ status: 502, body: refusal('hot_server') }, 'streams.unavailable', 'transient'],
      [{ status: 503, body: refusal('server_draining') }, 'streams.unavailable', 'transient'],
      [{ status: 409, body: refusal('transaction_conflict') }, 'streams.unavailable', 'transient'],
      [{ status: 408 }, 'streams.append_ambiguous', 'transient'],
      [{ status: 500, body: refusal('other') }, 'streams.append_ambiguous', 'transient'],
      [{ status: 503 }, 'streams.append_ambiguous', 'transient'],
      [{ status: 200, body: 'not JSON' }, 'streams.append_ambiguous', 'transient'],
      [{ status: 400, body: refusal('bad_proto') }, 'streams.refused', 'transient'],
      [{ status: 413 }, 'streams.refused', 'transient'],
    ])('%j to an append means %s', async (answer, code, kind) => {
      const { stream } = await freshStream();
      appendsMeet(answer);
      await expect(stream.append([text('a')])).rejects.toMatchObject({ code, kind });
      expect(await readBodies(stream)).toEqual(['first']);
    });

    test.each([
      [401, 'streams.unauthorized', 'transient'],
      [429, 'streams.unavailable', 'transient'],
      [500, 'streams.unavailable', 'transient'],
      [404, 'streams.unavailable', 'transient'],
      [400, 'streams.refused', 'transient'],
    ])('%i to a read, a look at the tail or a list means %s', async (status, code, kind) => {
      const { stream } = await freshStream();
      s2.proxy.decide(() => ({ status }));
      await expect(stream.read({ fromSeqNum: 0 })).rejects.toMatchObject({ code, kind });
      await expect(stream.tail()).rejects.toMatchObject({ code, kind });
      await expect(s2.store.list({ prefix: '' })).rejects.toMatchObject({ code, kind });
    });

    test('that never comes is given up', async () => {
      const clock = { ...systemClock };
      const { stream, direct } = await freshStream(await s2.openStore(s2.proxy.url, { clock }));
      s2.proxy.decide(() => 'hang');
      clock.after = (ms, callback) => systemClock.after(ms / 100, callback);
      await expect(stream.read({ fromSeqNum: 0 })).rejects.toMatchObject({ code: 'streams.unavailable' });
      await expect(stream.append([text('a')])).rejects.toMatchObject(AMBIGUOUS);
      expect(await readBodies(direct)).toEqual(['first']);
    });

    test('that does not end is given up', async () => {
      const { stream } = await freshStream();
      s2.proxy.decide(() => ({ status: 200, body: 'x'.repeat(17 * 1024 * 1024) }));
      await expect(stream.read({ fromSeqNum: 0 })).rejects.toMatchObject({
        code: 'streams.unavailable',
        cause: { message: 'an answer above 16777216 bytes' },
      });
    });

    test('that a stream is not there makes the next append create it', async () => {
      const { stream } = await freshStream();
      const isCreation = ({ method, path }: ProxiedRequest): boolean =>
        method === 'POST' && path.endsWith('/streams');
      await stream.append([text('second')]);
      expect(s2.proxy.requests.filter(isCreation)).toHaveLength(1);
      appendsMeet({ status: 404, body: refusal('stream_not_found') });
      await expect(stream.append([text('a')])).rejects.toMatchObject({ code: 'streams.unavailable' });
      await stream.append([text('third')]);
      expect(s2.proxy.requests.filter(isCreation)).toHaveLength(2);
      expect(await readBodies(stream)).toEqual(['first', 'second', 'third']);
    });
  });

  test('closing lets go of the connections at once', async () => {
    const append = (): Promise<unknown> =>
      s2.store.stream(s2.freshName()).append([text('a')], { matchSeqNum: 0 });
    await Promise.all([append(), append(), append()]);
    expect(await s2.proxy.connections()).toBeGreaterThan(1);
    await s2.store.close();
    // The one on which the basin was looked for is the SDK's, and idles for some seconds.
    await vi.waitFor(async () => expect(await s2.proxy.connections()).toBeLessThanOrEqual(1));
  });

  test('closing ends what hangs, also where the SDK sent it', async () => {
    const store = await s2.openStore(s2.proxy.url, { clock: patientClock });
    const { stream } = await freshStream(store);
    s2.proxy.decide(() => 'hang');
    const hanging = [stream.tail(), stream.read({ fromSeqNum: 0 }), store.list({ prefix: '' })];
    const outcomes = Promise.allSettled(hanging);
    await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(hanging.length));
    await store.close();
    const unavailable = { reason: { code: 'streams.unavailable', kind: 'transient' } };
    expect(await outcomes).toMatchObject(hanging.map(() => unavailable));
    await expect(store.list({ prefix: '' })).rejects.toMatchObject(unavailable.reason);
  });

  describe('a follower', () => {
    test('goes on after waits that the server ends with nothing, and does not hurry', async () => {
      const pauses: number[] = [];
      const clock: Clock = {
        ...systemClock,
        sleep: (ms, signal) => {
          pauses.push(ms);
          return systemClock.sleep(ms, signal);
        },
      };
      const { stream, direct } = await freshStream(await s2.openStore(s2.proxy.url, { clock }));
      let ended = 0;
      s2.proxy.decide((request) =>
        request.isLongPoll && ended++ < 5 ? { status: 200, body: '{"records":[]}' } : 'forward',
      );
      const following = startFollowing(stream);
      await vi.waitFor(() => expect(ended).toBeGreaterThan(5), { timeout: 30_000 });
      await direct.append([text('second')]);
      await following.saw(2);
      await following.stop();
      expect(following.bodies).toEqual(['first', 'second']);
      // Each pause is drawn from the upper half of 50, 100, 200, … ms.
      expect(pauses.map((ms, i) => Math.ceil(ms / (50 * 2 ** i)))).toEqual([1, 1, 1, 1, 1]);
      expect(Math.max(...pauses)).toBeGreaterThanOrEqual(400);
    });

    test('outlives any number of lost connections on an idle tail', async () => {
      const { stream, direct } = await freshStream();
      const following = startFollowing(stream);
      await following.saw(1);
      for (let cuts = 1; cuts <= 6; cuts++) {
        const before = s2.proxy.requests.length;
        await vi.waitFor(() => expect(lastRequest()?.isLongPoll).toBe(true), { timeout: 30_000 });
        s2.proxy.cutConnections();
        await vi.waitFor(() => expect(s2.proxy.requests.length).toBeGreaterThan(before), { timeout: 30_000 });
      }
      await direct.append([text('second')]);
      await following.saw(2);
      await following.stop();
      expect(following.bodies).toEqual(['first', 'second']);
    });

    test('outlives refused reads, revoked tokens and answers that make no sense', async () => {
      const { stream, direct } = await freshStream();
      const faults = [500, 401, 429, 404, 400, 412];
      let answers = 0;
      s2.proxy.decide(() => {
        const status = faults[answers++];
        return status === undefined ? 'forward' : { status };
      });
      const following = startFollowing(stream);
      await direct.append([text('second')]);
      await following.saw(2);
      await following.stop();
      expect([following.bodies, answers > faults.length]).toEqual([['first', 'second'], true]);
    });

    test('lets go of its connection as soon as it is aborted, also while the server hangs', async () => {
      const { stream } = await freshStream(await s2.openStore(s2.proxy.url, { clock: patientClock }));
      const following = startFollowing(stream);
      await following.saw(1);
      await vi.waitFor(() => expect(lastRequest()?.isLongPoll).toBe(true), { timeout: 30_000 });
      await following.stop();
      await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(0));
      s2.proxy.decide(() => 'hang');
      const hanging = startFollowing(stream);
      await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(1));
      await hanging.stop();
      await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(0));
    });

    test('of a stream that ends before its place waits until it gets there', async () => {
      const { stream, direct } = await freshStream();
      const following = startFollowing(stream, 3);
      await vi.waitFor(() => expect(s2.proxy.requests.length).toBeGreaterThan(6), { timeout: 30_000 });
      await direct.append(['1', '2', '3', '4'].map(text));
      await following.saw(2);
      await following.stop();
      expect(following.seqNums).toEqual([3, 4]);
    });

    test('that sees a jump, with nothing left behind it, reports it and goes on', async () => {
      const { stream, direct } = await freshStream();
      await direct.append([text('second')]);
      await direct.trim(1_000);
      await vi.waitFor(async () => expect((await direct.read({ fromSeqNum: 0 })).records).toEqual([]), {
        timeout: 30_000,
      });
      const following = startFollowing(stream);
      await vi.waitFor(() => expect(following.batches).toHaveLength(1), { timeout: 30_000 });
      await direct.append([text('third')]);
      await following.saw(1);
      await following.stop();
      expect(following.batches[0]?.missing).toEqual({ fromSeqNum: 0, toSeqNum: 3 });
      expect(following.seqNums).toEqual([3]);
    });

    const lastRequest = (): ProxiedRequest | undefined => s2.proxy.requests.at(-1);
  });
});

/** Gives up nothing, however long it takes. */
const patientClock: Clock = { ...systemClock, after: () => () => undefined };

/** Waits a thousandth of the time, and believes that it was the whole. */
function createHurriedClock(): Clock {
  return {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() * 1000,
    sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal),
  };
}
