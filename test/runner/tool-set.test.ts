/** Which tools are live: built from a real folder by the real sandbox, swapped when good, kept when not. */
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import { createFolderSource } from '../../src/runner/folder-source.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import type { SandboxPool } from '../../src/runner/sandbox/sandbox.ts';
import { createToolRecords } from '../../src/runner/tool-records.ts';
import { createToolSet } from '../../src/runner/tool-set.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { parseJsonRecord, toolsRecordSchema } from '../../src/streams/records.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';

const log = createLog('silent');
let pool: SandboxPool;
let root: string;
let directory: string;
let store: StreamStore;

beforeAll(() => {
  pool = createSandboxPool({ clock, log }, {});
});
afterAll(() => pool.close());

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'millrace-tools-'));
  directory = join(root, 'tools');
  await mkdir(directory);
  store = await openLocalStore(
    { clock, log },
    { directory: join(root, 'data'), retentionFor: () => 'forever' },
  );
});
afterEach(async () => {
  await store.close();
  await rm(root, { recursive: true });
});

const write = (source: string): Promise<void> => writeFile(join(directory, 'index.ts'), source);

function start(path = directory) {
  const abort = new AbortController();
  const tools = createToolSet({
    records: createToolRecords({ store, clock, log }),
    log,
    build: (files) => bundleTools({ ...files, clock, pool }),
    source: createFolderSource({ clock, log }, { directory: path }),
  });
  const running = tools.run(abort.signal);
  return {
    tools,
    running,
    live: () => tools.live(abort.signal),
    async stop() {
      abort.abort();
      await running;
    },
  };
}

async function onRecord() {
  const { records } = await store.stream('tools').read({ fromSeqNum: 0 });
  return records.map((record) => parseJsonRecord(toolsRecordSchema, record));
}

describe('tool set', () => {
  it('serves each export under its inbox names, and says so on the stream', async () => {
    await write(
      `export const dailyReport = () => 'x'; export default () => 'y'; export const settings = {}; export const note = 1;`,
    );
    const { live, stop } = start();
    const { toolOf, revision } = await live();
    expect([...toolOf].sort()).toEqual([
      ['daily-report', 'dailyReport'],
      ['dailyreport', 'dailyReport'],
      ['default', 'default'],
    ]);
    expect(await onRecord()).toMatchObject([{ status: 'live', revision, inboxes: [...toolOf.keys()] }]);
    await stop();
  });

  it('swaps a changed tool, and keeps the last good one when a change is broken', async () => {
    await write(`export const echo = () => 'one';`);
    const { tools, live, stop } = start();
    const first = await live();
    await write(`export const echo = () => 'two'; export const more = () => 'm';`);
    await expect.poll(() => tools.current()?.toolOf.has('more'), { timeout: 10_000 }).toBe(true);
    const second = tools.current()!;
    expect(second.revision).not.toBe(first.revision);
    await write(`export const echo = () => 'three`);
    await expect.poll(async () => (await onRecord()).at(-1)?.status, { timeout: 10_000 }).toBe('refused');
    expect((await onRecord()).at(-1)?.error).toContain('index.ts:1:33');
    expect(tools.current()).toBe(second);
    await stop();
  });

  it('notices a file that is replaced by renaming, as editors do, where the path is the file itself', async () => {
    await write(`export const echo = () => 'one';`);
    const { tools, live, stop } = start(join(directory, 'index.ts'));
    const first = await live();
    await writeFile(join(directory, 'new.tmp'), `export const echo = () => 'two';`);
    await rename(join(directory, 'new.tmp'), join(directory, 'index.ts'));
    await expect.poll(() => tools.current()?.revision !== first.revision, { timeout: 10_000 }).toBe(true);
    await stop();
  });

  it('adds no record when it starts again with the same tools', async () => {
    await write(`export const echo = () => 'one';`);
    for (let i = 0; i < 2; i++) {
      const { live, stop } = start();
      await live();
      await stop();
    }
    expect(await onRecord()).toHaveLength(1);
  });

  it('says where there are no tools', async () => {
    const { running } = start(join(root, 'elsewhere'));
    await expect(running).rejects.toMatchObject({ kind: 'invalid', code: 'tools.not_found' });
  });
});
