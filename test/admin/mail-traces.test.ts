/** What is kept in memory of the newest mails is bounded in bytes, not in number alone. */
import { expect, it } from 'vitest';
import { MailTraces } from '../../src/admin/mail-traces.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';

function recordOf(value: { kind: string; version: number; [field: string]: unknown }): StreamRecord {
  const { body, headers = [] } = jsonRecord(value);
  return { seqNum: 0, timestampMs: 0, headers, body: Buffer.from(body) };
}

it('keeps of what a run logged what is shown', () => {
  const traces = new MailTraces();
  const outcome = { seqNum: 0, key: 'a', outcome: 'done', attempts: 1, reason: null, error: null };
  const rest = { at: '2026-01-02T00:00:00Z', durationMs: 1 };
  const keep = (logs: unknown): unknown => {
    traces.addRun(
      'inbox/box',
      recordOf({ kind: 'outcome', version: 1, ...outcome, ...rest, facts: { logs } }),
    );
    return traces.runs.get('inbox/box a')?.facts['logs'];
  };
  expect(keep(Array.from({ length: 300 }, () => 'line'))).toHaveLength(200);
  expect(keep(['a'.repeat(19_000), 'b'.repeat(19_000), 'c'])).toEqual(['a'.repeat(19_000), 'b'.repeat(1000)]);
  expect(keep('no list')).toEqual([]);
});

it('keeps so many requests of a mail, with so much text', () => {
  const traces = new MailTraces();
  for (let effect = 0; effect < 300; effect += 1) {
    const request = {
      from: 'a@example.com',
      to: 'b@example.com',
      subject: 's',
      text: 'x'.repeat(30_000),
      headers: {},
    };
    const cause = { inbox: 'box', seqNum: 0, effect, emailId: 'mail' };
    const frozen = { idempotencyKey: `key-${effect}`, cause, thread: 't', notBefore: null, request };
    traces.addRequest(recordOf({ kind: 'request', version: 1, ...frozen }), request);
  }
  const kept = [...traces.requests.get('mail')!.values()];
  expect(kept.map(({ idempotencyKey }) => idempotencyKey)).toEqual(
    Array.from({ length: 200 }, (_, index) => `key-${index + 100}`),
  );
  const chars = kept.reduce((sum, { shown }) => sum + shown!.text.length, 0);
  expect(chars).toBeLessThanOrEqual(200_000);
  expect(kept.every(({ shown }) => shown!.isTextCut)).toBe(true);
});
