/** The local store: the contract, and what only it can show: the lock, the sweep, a full disk, a killed writer. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { isOfOneMail } from '../../src/streams/records.ts';
import { openLocalStore, openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { startFollowing } from './follow.contract.ts';
import { createManualClock } from './manual-clock.ts';
import { readAll, readBodies, text } from './store-reading.ts';
import { limits } from '../../src/streams/stream-store.ts';
import { describeStreamStoreContract } from './stream-store.contract.ts';

const deps = { clock: systemClock, log: createLog('silent') };

/** Debian's uid and gid of nobody. */
const NOBODY = 65_534;

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-local-store-'));
  cleanups.push(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function openStore(directory: string, clock: Clock = systemClock): Promise<StreamStore> {
  const store = await openLocalStore(
    { ...deps, clock },
    { directory, retentionFor: (name) => (name.startsWith('kept/') ? 'forever' : 100) },
  );
  cleanups.push(() => store.close());
  return store;
}

describeStreamStoreContract('local', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-local-store-'));
  const open = (): Promise<StreamStore> => openLocalStore(deps, { directory, retentionFor: () => 'forever' });
  let store = await open();
  return {
    get store() {
      return store;
    },
    async reopen() {
      await store.close();
      store = await open();
    },
    async dispose() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});

describe('the directory', () => {
  test('belongs to one writer, which the hint names, until it closes', async () => {
    const directory = temporaryDirectory();
    const first = await openStore(directory);
    await expect(openStore(directory)).rejects.toMatchObject({
      code: 'streams.locked',
      kind: 'invalid',
      hint: expect.stringContaining(directory),
    });
    await first.close();
    await expect(openStore(directory)).resolves.toBeDefined();
  });

  test('is made where it is missing, and is for the owner alone', async () => {
    const directory = join(temporaryDirectory(), 'a', 'b');
    await openStore(directory);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
  });

  test('has files that nobody else can read, whatever umask it was made under', async () => {
    const directory = temporaryDirectory();
    await openStore(directory);
    expect(filesOf(directory).map(({ mode }) => mode & 0o077)).toEqual([0, 0, 0, 0, 0]);
  });

  test.runIf(process.getuid?.() === 0)('belongs to the owner of its folder, when root makes it', async () => {
    const directory = temporaryDirectory();
    chownSync(directory, NOBODY, NOBODY);
    await openStore(directory);
    expect(new Set(filesOf(directory).map(({ uid, gid }) => `${uid}:${gid}`))).toEqual(
      new Set([`${NOBODY}:${NOBODY}`]),
    );
  });

  test('that another process has locked costs one wait, however many appends there are', async () => {
    const directory = temporaryDirectory();
    const store = await openStore(directory);
    await store.stream('events').append([{ body: 'first' }]);
    const person = new DatabaseSync(join(directory, 'streams.db'));
    person.exec('BEGIN IMMEDIATE');
    const refused = async (count: number): Promise<number> => {
      const startMs = performance.now();
      const appends = Array.from({ length: count }, () => store.stream('events').append([{ body: 'more' }]));
      for (const append of appends)
        await expect(append).rejects.toMatchObject({ code: 'streams.unavailable' });
      return performance.now() - startMs;
    };
    const oneMs = await refused(1);
    expect((await refused(6)) / oneMs).toBeLessThan(3);
    person.close();
    await expect(store.stream('events').append([{ body: 'second' }])).resolves.toMatchObject({
      startSeqNum: 1,
    });
  });

  test('of a newer release is refused, and the lock let go', async () => {
    const directory = temporaryDirectory();
    await (await openStore(directory)).close();
    const db = new DatabaseSync(join(directory, 'streams.db'));
    db.exec('PRAGMA user_version = 99');
    const refusal = { code: 'streams.newer_schema', kind: 'invalid' };
    await expect(openStore(directory)).rejects.toMatchObject(refusal);
    await expect(openLocalStoreReadOnly(deps, { directory })).rejects.toMatchObject(refusal);
    db.exec('PRAGMA user_version = 1');
    db.close();
    await expect(openStore(directory)).resolves.toBeDefined();
  });

  test('can be read and followed by another connection while it is written', async () => {
    const directory = temporaryDirectory();
    const writer = await openStore(directory);
    await writer.stream('a').append([text('1')]);
    const reader = await openLocalStoreReadOnly(deps, { directory });
    cleanups.push(() => reader.close());
    expect(await readBodies(reader.stream('a'))).toEqual(['1']);
    const following = startFollowing(reader.stream('a'));
    await following.saw(1);
    await writer.stream('a').append([text('2')]);
    await following.saw(2);
    await following.stop();
    await expect(reader.stream('a').append([text('3')])).rejects.toMatchObject({ code: 'streams.read_only' });
  });

  test('that is not there cannot be read', async () => {
    const directory = join(temporaryDirectory(), 'nothing');
    await expect(openLocalStoreReadOnly(deps, { directory })).rejects.toMatchObject({
      code: 'streams.unavailable',
    });
  });
});

const filesOf = (directory: string) => readdirSync(directory).map((name) => statSync(join(directory, name)));

/** Starts `local-writer.ts`; `shell` runs before it in the same process. */
function startWriter(directory: string, mode: 'stream' | 'full', shell = ''): ChildProcess {
  const script = fileURLToPath(new URL('local-writer.ts', import.meta.url));
  const child = spawn(
    '/bin/sh',
    ['-c', `${shell} exec "$0" "$@"`, process.execPath, script, directory, mode],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  cleanups.push(() => child.kill('SIGKILL'));
  return child;
}

describe('a writer', { timeout: 60_000 }, () => {
  test('that is killed loses nothing that it has acknowledged, and leaves whole batches', async () => {
    for (const acknowledged of [1, 40, 200]) {
      const directory = temporaryDirectory();
      const child = startWriter(directory, 'stream');
      const acks: { startSeqNum: number; writer: number; batch: number; size: number }[] = [];
      for await (const line of createInterface({ input: child.stdout ?? process.stdin })) {
        acks.push(JSON.parse(line));
        if (acks.length === acknowledged) child.kill('SIGKILL');
      }
      // The system lets go of the lock with the process: opening must not be refused.
      const stream = (await openStore(directory)).stream('s');
      const read = await readBodies(stream);
      for (const { startSeqNum, writer, batch, size } of acks) {
        const whole = Array.from({ length: size }, (_, i) => `${writer}/${batch}/${i}/${size}`);
        expect(read.slice(startSeqNum, startSeqNum + size)).toEqual(whole);
      }
      const last = read.at(-1)?.split('/').map(Number);
      expect(last?.[2]).toBe((last?.[3] ?? 0) - 1);
      expect(await stream.tail()).toBe(read.length);
    }
  });

  test('whose disk is full refuses what does not fit, takes what does, and keeps what it had', async () => {
    const directory = temporaryDirectory();
    // The system's limit on the size of a file fails the write as a full disk does.
    const child = startWriter(directory, 'full', 'trap "" XFSZ; ulimit -f 600;');
    const [line] = (await once(createInterface({ input: child.stdout ?? process.stdin }), 'line')) as [
      string,
    ];
    expect(JSON.parse(line)).toEqual({
      outcomes: ['ok', ['streams.unavailable', 'transient'], 'ok'],
      small: 2,
      largeTail: 0,
      next: { startSeqNum: 2, endSeqNum: 3 },
    });
    if (child.exitCode === null) await once(child, 'exit');
    expect(await readBodies((await openStore(directory)).stream('small'))).toEqual(['1', '2', '3']);
  });
});

test('an append that fails for a reason of its own leaves those that arrived with it alone', async () => {
  const store = await openLocalStore(deps, {
    directory: temporaryDirectory(),
    retentionFor(name) {
      if (name === 'bad') throw new TypeError('no retention for this one');
      return 'forever';
    },
  });
  cleanups.push(() => store.close());
  const [before, failed, after] = await Promise.allSettled(
    ['good', 'bad', 'good'].map((name) => store.stream(name).append([text('x')])),
  );
  expect([before?.status, after?.status]).toEqual(['fulfilled', 'fulfilled']);
  expect(failed).toMatchObject({ reason: expect.any(TypeError) });
  expect(await store.stream('good').append([text('y')])).toEqual({ startSeqNum: 2, endSeqNum: 3 });
  expect(await store.stream('bad').tail()).toBe(0);
});

test('closing commits what was still on its way', async () => {
  const directory = temporaryDirectory();
  const store = await openStore(directory);
  const appended = store.stream('a').append([text('last words')]);
  await Promise.all([store.close(), store.close()]);
  expect(await appended).toEqual({ startSeqNum: 0, endSeqNum: 1 });
  expect(await readBodies((await openStore(directory)).stream('a'))).toEqual(['last words']);
});

describe('reading a long stream in a loop', () => {
  const BATCHES = 20;

  /** How often the event loop turned while `read` was at work. */
  async function turnsDuring(read: () => Promise<unknown>): Promise<number> {
    let turns = 0;
    let tick = setImmediate(function turn() {
      turns++;
      tick = setImmediate(turn);
    });
    await read();
    clearImmediate(tick);
    return turns;
  }

  test.each([
    [
      'by batches',
      async (store: StreamStore) => expect(await readAll(store.stream('long'))).toHaveLength(20_000),
    ],
    [
      'by following it',
      async (store: StreamStore) => {
        const { signal } = new AbortController();
        for await (const { nextSeqNum } of store.stream('long').follow({ fromSeqNum: 0, signal }))
          if (nextSeqNum === BATCHES * limits.batchRecords) break;
      },
    ],
  ])('%s lets others have their turn', async (_how, read) => {
    const store = await openStore(temporaryDirectory());
    for (let batch = 0; batch < BATCHES; batch++)
      await store.stream('long').append(Array.from({ length: limits.batchRecords }, () => text('x')));
    expect(await turnsDuring(() => read(store))).toBeGreaterThanOrEqual(BATCHES - 1);
  });
});

describe('retention', () => {
  test('the sweep deletes what has expired, keeps the rest, and reports the jump', async () => {
    const clock = createManualClock();
    const store = await openStore(temporaryDirectory(), clock);
    const [mail, kept] = [store.stream('mail/1'), store.stream('kept/1')];
    await Promise.all([mail.append([text('old'), text('old too')]), kept.append([text('for ever')])]);
    clock.advance(60_000);
    await mail.append([text('young')]);
    expect(await readBodies(mail)).toEqual(['old', 'old too', 'young']);
    clock.advance(90_000);
    const { records, missing } = await mail.read({ fromSeqNum: 0 });
    expect(records.map((record) => record.seqNum)).toEqual([2]);
    expect(missing).toEqual({ fromSeqNum: 0, toSeqNum: 2 });
    clock.advance(120_000);
    expect(await mail.read({ fromSeqNum: 0 })).toEqual({
      records: [],
      nextSeqNum: 3,
      missing: { fromSeqNum: 0, toSeqNum: 3 },
    });
    expect(await readBodies(kept)).toEqual(['for ever']);
    expect(await mail.append([text('next')])).toEqual({ startSeqNum: 3, endSeqNum: 4 });
  });

  test('many streams and long ones are swept away in small batches', async () => {
    const directory = temporaryDirectory();
    const clock = createManualClock();
    const store = await openStore(directory, clock);
    const thousand = Array.from({ length: 1000 }, (_, i) => text(`${i}`));
    await store.stream('long').append(thousand);
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => store.stream(`mail/${i}`).append([text('x'), text('y')])),
    );
    await store.stream('trimmed').append(thousand);
    await store.stream('kept/trimmed').append(thousand);
    await store.stream('kept/trimmed').trim(999);
    clock.advance(200_000);
    await store.close();
    const db = new DatabaseSync(join(directory, 'streams.db'));
    expect(db.prepare('SELECT count(*) AS left FROM records').get()).toEqual({ left: 1 });
    db.close();
  });

  // A name for each mail stayed for ever: rows without a record were all that a file held in the end.
  test('a stream of one mail is gone with its last record, and begins anew', async () => {
    const clock = createManualClock();
    const store = await openLocalStore(
      { ...deps, clock },
      { directory: temporaryDirectory(), retentionFor: () => 100, endsWithItsRecords: isOfOneMail },
    );
    cleanups.push(() => store.close());
    const names = ['inbox/box', 'mail/1', 'request/box/1/0', 'state/box', 'state/box/thread'];
    for (const name of names) await store.stream(name).append([text('old')]);
    await store.stream('mail/fenced').append([text('old')]);
    await store.stream('mail/fenced').fence('owner');
    const mail = store.stream('mail/1');
    clock.advance(70_000);
    await mail.append([text('young')]);
    clock.advance(60_000);
    expect(await readBodies(mail)).toEqual(['young']);
    clock.advance(120_000);
    expect((await store.list({ prefix: '' })).names).toEqual(['inbox/box', 'mail/fenced', 'state/box']);
    expect(await mail.tail()).toBe(0);
    expect(await mail.read({ fromSeqNum: 2 })).toEqual({ records: [], nextSeqNum: 2 });
    await mail.append([text('anew')], { matchSeqNum: 0 });
    expect(await readBodies(mail)).toEqual(['anew']);
    await store.stream('inbox/box').append([text('next')], { matchSeqNum: 1 });
  });

  test('a stream that gets another retention keeps to it from the next append on', async () => {
    const directory = temporaryDirectory();
    const clock = createManualClock();
    const store = await openStore(directory, clock);
    await store.stream('a').append([text('1')]);
    await store.close();
    const patient = await openLocalStore({ ...deps, clock }, { directory, retentionFor: () => 1000 });
    cleanups.push(() => patient.close());
    await patient.stream('a').append([text('2')]);
    clock.advance(500_000);
    expect(await readBodies(patient.stream('a'))).toEqual(['1', '2']);
    clock.advance(600_000);
    expect(await readBodies(patient.stream('a'))).toEqual([]);
  });

  describe('of ninety days', () => {
    const DAY_MS = 86_400_000;
    const clock = createManualClock();
    const openMonths = async (directory: string): Promise<StreamStore> => {
      const store = await openLocalStore(
        { ...deps, clock },
        { directory, retentionFor: () => (90 * DAY_MS) / 1000 },
      );
      cleanups.push(() => store.close());
      return store;
    };

    test('a clock that is a year ahead for ten minutes expires nothing, also over a restart', async () => {
      const directory = temporaryDirectory();
      const before = await openMonths(directory);
      await before.stream('mail/1').append([text('first')]);
      clock.advance(60_000);
      const rightMs = clock.nowMs();
      clock.jumpTo(rightMs + 365 * DAY_MS);
      await before.stream('mail/2').append([text('of next year')]);
      clock.advance(300_000);
      await before.close();
      const after = await openMonths(directory);
      clock.advance(300_000);
      expect(await readBodies(after.stream('mail/1'))).toEqual(['first']);
      clock.jumpTo(rightMs + 600_000);
      clock.advance(300_000);
      expect(await readBodies(after.stream('mail/1'))).toEqual(['first']);
    });

    test('a clock that stays there is believed', async () => {
      const store = await openMonths(temporaryDirectory());
      await store.stream('mail/1').append([text('first')]);
      clock.jumpTo(clock.nowMs() + 91 * DAY_MS);
      clock.advance(3.5 * DAY_MS);
      expect(await readBodies(store.stream('mail/1'))).toEqual(['first']);
      clock.advance(0.5 * DAY_MS);
      expect(await readBodies(store.stream('mail/1'))).toEqual([]);
    });
  });

  test('a clock that goes back does not turn the order of timestamps', async () => {
    const clock = createManualClock();
    const store = await openStore(temporaryDirectory(), clock);
    clock.jumpTo(5_000);
    await store.stream('kept/a').append([text('1')]);
    clock.jumpTo(4_000);
    await store.stream('kept/a').append([text('2')]);
    expect((await readAll(store.stream('kept/a'))).map((record) => record.timestampMs)).toEqual([
      5_000, 5_000,
    ]);
  });
});
