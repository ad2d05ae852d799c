/** What a run's effects are keyed by: the same for the same cause, whatever became of its record's number. */
import { describe, expect, it } from 'vitest';
import { causeOfRun } from '../../src/runner/run-cause.ts';
import type { RunCause } from '../../src/runner/run-cause.ts';
import type { RecordHeader } from '../../src/streams/stream-store.ts';

const BACKUP = '2026-11-20T00:00:00.000Z';
const RESTORE = '2026-11-22T00:00:00.000Z';
const LOST = { backupAtMs: Date.parse(BACKUP), restoredAtMs: Date.parse(RESTORE) };

interface Copy {
  seqNum?: number;
  headers?: RecordHeader[];
  mail?: { receivedAt?: string; arrivedAt?: string };
  isRestored?: boolean;
  /** When the record was written. */
  at?: string;
}

function cause({
  seqNum = 7,
  headers = [['key', 'e1']],
  mail = {},
  isRestored = false,
  at = BACKUP,
}: Copy): RunCause {
  const record = { seqNum, timestampMs: Date.parse(at), headers, body: Buffer.from('') };
  const fields = { emailId: 'e1', receivedAt: BACKUP, ...mail };
  return causeOfRun(record, fields, { inbox: 'desk', lost: isRestored ? LOST : null });
}

const key = (copy: Copy): string => cause(copy).idempotencyKey(0);

describe('the idempotency key of an effect', () => {
  it('is the same for a mail that has another number after a restore, and so is what is random', () => {
    expect(key({ seqNum: 7 })).toBe('desk/e1/0');
    expect(key({ seqNum: 8 })).toBe('desk/e1/0');
    expect(cause({ seqNum: 8 }).seed).toBe(cause({ seqNum: 7 }).seed);
  });

  it('is another one for each effect, each address of a catch-all, and each replay', () => {
    const keys = [
      cause({}).idempotencyKey(0),
      cause({}).idempotencyKey(1),
      ...['e1/a@x.example', 'e1/b@x.example', 'e1#replay-1', 'e1#replay-2', 'e1#routed-desk'].map((of) =>
        key({ headers: [['key', of]] }),
      ),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    for (const one of keys) expect(one).toMatch(/^desk\/e1\/[\w/-]+$/);
  });

  it('is kept by a redriven copy, of a replay too', () => {
    for (const of of ['e1', 'e1#replay-1']) {
      const copy: RecordHeader[] = [
        ['key', 'e1#redrive-7'],
        ['copy-of', 'inbox/desk#7'],
        ['origin', '7'],
        ['cause', of],
      ];
      expect(key({ seqNum: 9, headers: copy })).toBe(key({ headers: [['key', of]] }));
    }
  });

  it('has the number where nothing else is known of the cause', () => {
    expect(key({ headers: [] })).toBe('desk/7/0/e1');
    // As a release put it back that did not say more: of whatever it was a copy.
    const copy: RecordHeader[] = [
      ['key', 'e1#redrive-7'],
      ['origin', '7'],
    ];
    expect(key({ seqNum: 9, headers: copy })).toBe('desk/7/0/e1');
  });
});

it('the outbox settles a request by the number, as every release has', () => {
  expect(cause({}).settlementKey(2)).toBe('desk/7/2/e1');
  const origin: RecordHeader[] = [
    ['key', 'e1#redrive-7'],
    ['origin', '7'],
  ];
  expect(cause({ seqNum: 9, headers: origin }).settlementKey(2)).toBe('desk/7/2/e1');
});

it('a redriven mail is in doubt since when its copy says that there was a request', () => {
  const headers: RecordHeader[] = [
    ['key', 'e1#redrive-7'],
    ['origin', '7'],
    ['doubt-since', '1000'],
  ];
  expect(cause({ headers }).doubtSinceMs).toBe(1000);
  expect(cause({ headers, isRestored: true }).doubtSinceMs).toBe(1000);
});

describe('after a restore', () => {
  const doubt = (copy: Copy): number | null => cause({ isRestored: true, ...copy }).doubtSinceMs;

  it('a mail that was there before may have been answered since the backup', () => {
    expect(doubt({})).toBe(LOST.backupAtMs);
    expect(cause({}).doubtSinceMs).toBeNull();
  });

  it('so may one that came after the backup and is posted again, and none that came later', () => {
    const receivedAt = '2026-11-23T00:00:00.000Z';
    expect(doubt({ mail: { receivedAt, arrivedAt: '2026-11-21T00:00:00.000Z' } })).toBe(LOST.backupAtMs);
    expect(doubt({ mail: { receivedAt } })).toBeNull();
  });

  it('what a person runs again on purpose is sent', () => {
    const headers: RecordHeader[] = [
      ['key', 'e1#replay-1'],
      ['copy-of', 'inbox/desk#7'],
    ];
    expect(doubt({ headers, at: '2026-11-23T00:00:00.000Z' })).toBeNull();
    // But one that was there before may have run in the time that was lost.
    expect(doubt({ headers, at: '2026-11-19T00:00:00.000Z' })).toBe(LOST.backupAtMs);
  });
});

// On `local` the records of a stream keep the time of a clock that was ahead until it has come: no cause lay behind.
it('came about no later than its mail by the clock of the provider, where ours was ahead once', () => {
  const [ahead, mail] = [
    '2027-01-20T00:00:00.000Z',
    { receivedAt: '2027-01-20T00:00:00.000Z', arrivedAt: BACKUP },
  ];
  expect(cause({ at: ahead, mail }).atMs).toBe(Date.parse(BACKUP));
  expect(cause({ at: BACKUP, mail: { receivedAt: RESTORE } }).atMs).toBe(Date.parse(BACKUP));
  // A copy that a person asked for came about when it was asked for.
  const headers: RecordHeader[] = [['copy-of', 'inbox/desk#7']];
  expect(cause({ at: RESTORE, headers, mail: { receivedAt: BACKUP } }).atMs).toBe(Date.parse(RESTORE));
});
