/** Sources that are made for what bundles them: it neither dies of them, nor waits for ever, nor reads beside them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { createManualClock } from '../streams/manual-clock.ts';
import { folderWith, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
const REFUSED = { kind: 'invalid', code: 'tools.build_failed' };
const GOOD = { 'index.ts': 'export const test = () => "good";' };

interface Limits {
  clock?: Clock;
  signal?: AbortSignal;
}

const build = (files: Record<string, string>, limits: Limits = {}): Promise<ToolBundle> =>
  bundleTools({ directory: folderWith(files), clock: systemClock, pool: sandbox.pool, ...limits });

const outside = mkdtempSync(join(tmpdir(), 'millrace-outside-'));
const map = { version: 3, sources: ['of-the-host.ts'], names: [], mappings: 'AAAA' };
writeFileSync(join(outside, 'secret.map'), JSON.stringify(map));
afterAll(() => rmSync(outside, { recursive: true }));

it('is bundled though esbuild was killed before', async () => {
  await build(GOOD);
  killEsbuild();
  await expect.poll(esbuildProcesses).toEqual([]);
  expect((await build(GOOD)).exports).toEqual(['test']);
});

describe('that names a source map elsewhere is bundled without it', () => {
  const relative = `../../../../..${outside}/secret.map`;
  it.each([
    ['in its last line', `//# sourceMappingURL=${relative}`],
    ['as a URL', `//# sourceMappingURL=file://${outside}/secret.map`],
    ['in a comment between', `/*# sourceMappingURL=${relative} */ export const other = 1;`],
  ])('%s', async (_name, comment) => {
    const { exports, sourceMap } = await build({ 'index.ts': `${GOOD['index.ts']}\n${comment}` });
    expect(exports).toEqual(['test']);
    expect(sourceMap).not.toContain('of-the-host');
    expect(sourceMap).toContain('index.ts');
  });

  it('but text that looks like one is left as it is', async () => {
    const text = '//# sourceMappingURL=x';
    const { code } = await build({
      'index.ts': `import page from './page.js' with { type: 'text' }; export const test = () => page + '${text}';`,
      'page.js': text,
    });
    expect(code.split(text)).toHaveLength(3);
    expect(code).not.toContain('data:');
  });
});

it('may hold no source in a URL, which could name a source map as well', async () => {
  const source = encodeURIComponent(`export default 1\n//# sourceMappingURL=file://${outside}/secret.map`);
  const built = build({ 'index.ts': `export { default } from 'data:text/javascript,${source}';` });
  await expect(built).rejects.toThrow('lies outside of the tools');
});

describe('that esbuild does not come to an end with', () => {
  /** Tools that esbuild finds a pipe in, where a package would say what it is. */
  function endless(): { directory: string; pipe: string } {
    const directory = folderWith({ 'index.ts': `import './lib/a.ts'; ${GOOD['index.ts']}`, 'lib/a.ts': '' });
    const pipe = join(directory, 'lib/package.json');
    execFileSync('mkfifo', [pipe]);
    return { directory, pipe };
  }

  /** What becomes of such tools if this happens while esbuild reads. */
  async function whileReading(limits: Limits, then: () => void): Promise<unknown> {
    const { directory, pipe } = endless();
    const built = bundleTools({ directory, clock: systemClock, pool: sandbox.pool, ...limits });
    const failed = built.then(
      () => expect.fail('it was bundled'),
      (error: unknown) => error,
    );
    await using _writer = await open(pipe, 'w');
    then();
    return await failed;
  }

  // The first such push was refused, as was every later one until the daemon was started anew.
  it('as it dies of it each time, is refused, and the next one is bundled', async () => {
    const { directory } = endless();
    const killing = setInterval(killEsbuild, 10);
    const built = bundleTools({ directory, clock: systemClock, pool: sandbox.pool });
    await expect(built.finally(() => clearInterval(killing))).rejects.toMatchObject(REFUSED);
    expect((await build(GOOD)).exports).toEqual(['test']);
  });

  it('is refused once its time is over', async () => {
    const clock = createManualClock();
    const error = await whileReading({ clock }, () => clock.advance(60_000));
    expect(error).toMatchObject(REFUSED);
    expect((await build(GOOD)).exports).toEqual(['test']);
  });

  it('is given up at a stop', async () => {
    const stopped = new AbortController();
    const error = await whileReading({ signal: stopped.signal }, () => stopped.abort());
    expect(error).toBe(stopped.signal.reason);
    expect((await build(GOOD)).exports).toEqual(['test']);
  });
});

/** As the kernel does where memory is short. */
function killEsbuild(): void {
  for (const pid of esbuildProcesses()) process.kill(pid, 'SIGKILL');
}

function esbuildProcesses(): number[] {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ');
  return children.map(Number).filter((pid) => commandOf(pid) === 'esbuild\n');
}

/** Of a process that may be gone by now. */
function commandOf(pid: number): string | null {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return null;
  }
}
