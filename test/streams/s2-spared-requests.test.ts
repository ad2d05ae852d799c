/**
 * What spares requests to S2: appends that share one, and first appends that make their stream. Seen through a
 * proxy that counts and fails, in front of a real `s2 lite`.
 */
import { describe, expect, test, vi } from 'vitest';
import type { ProxiedRequest } from './faulty-proxy.ts';
import { useS2BehindProxy } from './s2-behind-proxy.ts';
import { s2Binary } from './s2-lite.ts';
import { readBodies, text } from './store-reading.ts';

const AMBIGUOUS = { code: 'streams.append_ambiguous', kind: 'transient' };

describe.skipIf(!s2Binary())('requests to S2 that are spared', { timeout: 60_000 }, () => {
  const s2 = useS2BehindProxy();
  const { freshStream, appendsMeet, appendsSent } = s2;

  describe('appends without a condition', () => {
    test('that come at once share a request, and each has its own acknowledgement', async () => {
      const { stream, direct } = await freshStream();
      const before = appendsSent();
      const bodies = Array.from({ length: 200 }, (_, i) => String(i));
      const acks = await Promise.all(bodies.map((body) => stream.append([text(body)])));
      expect(appendsSent() - before).toBeLessThan(5);
      const read = await readBodies(direct);
      expect(acks.map(({ startSeqNum }) => read[startSeqNum])).toEqual(bodies);
      expect(acks.every(({ startSeqNum, endSeqNum }) => endSeqNum === startSeqNum + 1)).toBe(true);
    });

    test('share the loss of their acknowledgement, too', async () => {
      const { stream, direct } = await freshStream();
      appendsMeet('lose-answer');
      const outcomes = await Promise.allSettled(['a', 'b', 'c'].map((body) => stream.append([text(body)])));
      expect(outcomes).toMatchObject(outcomes.map(() => ({ status: 'rejected', reason: AMBIGUOUS })));
      expect(await readBodies(direct)).toEqual(['first', 'a', 'b', 'c']);
    });

    test('that are refused together are sent alone: one that S2 does not take parks alone', async () => {
      const { stream, direct } = await freshStream();
      appendsMeet({ status: 400 }, 'forward', { status: 400 });
      const outcomes = await Promise.allSettled(['a', 'b', 'c'].map((body) => stream.append([text(body)])));
      const refused = outcomes.filter(({ status }) => status === 'rejected');
      expect(refused).toMatchObject([{ reason: { code: 'streams.refused' } }]);
      expect(await readBodies(direct)).toHaveLength(3);
    });

    test('leave alone when their signal is aborted, and the others go on', async () => {
      const { stream, direct } = await freshStream();
      const leave = new AbortController();
      s2.proxy.decide((request) => {
        if (request.isAppend) leave.abort(new Error('enough'));
        return 'forward';
      });
      const [left, stayed] = await Promise.allSettled([
        stream.append([text('a')], { signal: leave.signal }),
        stream.append([text('b')]),
      ]);
      expect(left).toMatchObject({ status: 'rejected', reason: { message: 'enough' } });
      expect(stayed).toMatchObject({ status: 'fulfilled' });
      expect(await readBodies(direct)).toContain('b');
    });

    test('take their request with them when all are aborted', async () => {
      const { stream } = await freshStream();
      s2.proxy.decide(() => 'hang');
      const leave = new AbortController();
      const appended = ['a', 'b'].map((body) => stream.append([text(body)], { signal: leave.signal }));
      const settled = Promise.allSettled(appended);
      await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(1));
      leave.abort(new Error('enough'));
      expect(await settled).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }]);
      await vi.waitFor(() => expect(s2.proxy.inFlight()).toBe(0));
    });
  });

  describe('the first append of a stream', () => {
    const isCreation = ({ method, path }: ProxiedRequest): boolean =>
      method === 'POST' && path.endsWith('/streams');

    test('makes the stream: one request', async () => {
      const stream = s2.store.stream(s2.freshName());
      await stream.append([text('a')], { matchSeqNum: 0 });
      expect(s2.proxy.requests.filter(({ method }) => method === 'POST')).toMatchObject([{ isAppend: true }]);
      expect(await readBodies(stream)).toEqual(['a']);
    });

    test('is there once when its acknowledgement is lost', async () => {
      const stream = s2.store.stream(s2.freshName());
      appendsMeet('lose-answer');
      expect(await stream.append([text('a')], { matchSeqNum: 0 })).toEqual({ startSeqNum: 0, endSeqNum: 1 });
      expect(await readBodies(stream)).toEqual(['a']);
    });

    test('finds it created where the basin does not make streams, and so do those after it', async () => {
      await s2.fixture.client.basins.create({ basin: 'millrace-strict' });
      const strict = await s2.openStore(s2.proxy.url, { basin: 'millrace-strict' });
      for (const name of ['strict/1', 'strict/2'])
        await strict.stream(name).append([text('a')], { matchSeqNum: 0 });
      expect(await readBodies(strict.stream('strict/2'))).toEqual(['a']);
      expect(s2.proxy.requests.filter(isCreation)).toHaveLength(2);
      expect(appendsSent()).toBe(3);
    });
  });
});
