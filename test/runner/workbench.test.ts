/**
 * `millrace init`, `check` and `dev`: the real commands on a folder as an author has it, with the compiler, the
 * bundler and the sandbox of a server.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseMessage } from '../../src/mail/message.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { changeText } from '../../src/runner/workbench/dev.ts';
import { lastEmailIn } from '../../src/runner/workbench/trial.ts';
import { writeBlob } from '../../src/streams/blob.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import { programEnvironment } from '../program-environment.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = [join(root, 'src/main.ts')];
const base = mkdtempSync(join(tmpdir(), 'millrace-workbench-'));
const written = join(base, 'written');
let folder: string;
let tools: string;
let copies = 0;
const started: Process[] = [];

beforeAll(async () => {
  expect(await ended(start(process.execPath, [...main, 'init', 'tools', written]))).toMatchObject({
    status: 0,
  });
});
beforeEach(() => {
  folder = join(base, `copy-${(copies += 1)}`);
  cpSync(written, folder, { recursive: true });
  tools = join(folder, 'tools/index.ts');
});
afterAll(() => {
  for (const child of started) child.kill('SIGKILL');
  rmSync(base, { recursive: true, force: true });
});

describe('a folder that init has written', { timeout: 60_000 }, () => {
  it('passes its own `npm test`, without a network', async () => {
    const [file, ...args] = [...withoutNetwork(), 'npm', 'test'] as const;
    const { status, output } = await ended(start(file, args, { cwd: folder }));
    expect(output).toContain('reverser, wordCount: types are right, 3 tests hold');
    expect(status).toBe(0);
  });

  it('is right for an editor, which has the copy of the types alone', async () => {
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
    const check = (): Promise<Ended> => ended(start(process.execPath, [tsc, '-p', folder]));
    expect(await check()).toEqual({ status: 0, output: '' });
    appendFileSync(
      tools,
      '\nexport const wrong = (email: Email): string => email.text.size + html`<p>${1}</p>`;\n',
    );
    const { output } = await check();
    expect(output).toContain("Property 'size' does not exist on type 'string'");
    expect(output).toContain("Cannot find name 'html'");
  });

  it('is not written over', async () => {
    const { status, output } = await ended(start(process.execPath, [...main, 'init', 'tools', folder]));
    expect(status).toBe(2);
    expect(output).toContain('is not empty');
  });

  // It never ended.
  it('is not written where no folder can be', async () => {
    const { status, output } = await ended(start(process.execPath, [...main, 'init', 'tools', '/proc/x']));
    expect(output).toMatch(/\/proc\/x cannot be written: ENOENT/);
    expect(status).toBe(2);
  });

  it('is not written in place of a file', async () => {
    const { status, output } = await ended(start(process.execPath, [...main, 'init', 'tools', tools]));
    expect(output).toMatch(/index\.ts is a file\n/);
    expect(status).toBe(2);
  });
});

describe('check', { timeout: 60_000 }, () => {
  it.each([
    ['a type', 'email.text.trim()', 'email.text.trimm()', /tools\/index\.ts:8:\d+: error TS2551: .*trimm/],
    ['a test', 'reverse()', 'sort()', /tests\.reverser\.0: .*desserts/],
    ['the syntax', '[...email', '[..email', /index\.ts:8:\d+: /],
  ])('names the place where %s is wrong', async (_name, old, fresh, message) => {
    edit(old, fresh);
    const { status, output } = await ended(start(process.execPath, [...main, 'check', folder]));
    expect(output).toMatch(message);
    expect(status).toBe(2);
  });
});

it('check says which functions no mail can reach', { timeout: 60_000 }, async () => {
  appendFileSync(tools, "const spare = () => ''; export { spare as _spare, spare as 'a b' };");
  const { status, output } = await ended(start(process.execPath, [...main, 'check', folder]));
  expect(output).toContain('No mail can reach "_spare", "a b": an inbox has letters');
  expect(status).toBe(0);
});

it.each([
  ['check', 'emails'],
  ['dev', 'nowhere'],
])(
  '%s of a folder without tools says where it looks for some',
  { timeout: 60_000 },
  async (command, name) => {
    const { status, output } = await ended(start(process.execPath, [...main, command, join(folder, name)]));
    expect(output).toContain(
      `there are no tools in ${join(folder, name)}\nName the folder with their index.ts`,
    );
    expect(status).toBe(2);
  },
);

describe('dev', { timeout: 120_000 }, () => {
  it('shows the reply, what a change makes of it, and what is wrong; and ends with its children', async () => {
    const dev = start(process.execPath, [...main, 'dev', folder], { cwd: base });
    const seen = outputOf(dev);
    await seen.until('8 words; the longest is “words”.');

    edit('`${words.length} words', '`There are ${words.length} words');
    await seen.until('+ There are 8 words');
    expect(seen.text()).toContain('- 8 words; the longest is “words”.');
    // The author's own tests are for the old text; what would be sent is shown all the same.
    expect(seen.text()).toContain('tests.wordCount.0');

    edit('email.newText', 'email.newTex');
    await seen.until(/tools\/index\.ts:12:\d+: error TS2551/);
    edit('email.newTex.', 'email.newText.');
    writeFileSync(
      join(folder, 'emails/second.eml'),
      'From: b@example.net\r\nTo: reverser+x@elsewhere.example\r\n\r\nabc\r\n',
    );
    await seen.until(/── reverser\nreply\n\ncba/);

    const children = childrenOf(dev.pid!);
    expect(children.length).toBeGreaterThan(0);
    dev.kill('SIGINT');
    expect((await once(dev, 'exit'))[0]).toBe(0);
    await vi.waitFor(() => expect(children.filter(isRunning)).toEqual([]));
    expect(seen.text()).not.toContain('\u001b');
  });

  it('takes the last email that a daemon of the folder has received, where none in `emails` is newer', async () => {
    const data = join(folder, 'data');
    const log = createLog('silent');
    const store = await openLocalStore({ clock, log }, { directory: data, retentionFor: () => 'forever' });
    // Not what the header says: it came by Bcc.
    const raw = Buffer.from('From: b@example.net\r\nTo: others@example.com\r\n\r\nreceived\r\n');
    const mail = {
      kind: 'email',
      version: 1,
      emailId: 'e1',
      inbox: 'reverser',
      address: 'reverser@example.com',
      tag: null,
      receivedAt: new Date().toISOString(),
      email: await parseMessage(raw),
      complete: true,
      raw: await writeBlob(store.stream('mail/e1'), raw),
    };
    await store.stream('inbox/reverser').append([jsonRecord(mail, 'e1')]);
    const dev = start(process.execPath, [...main, 'dev', folder], { cwd: folder });
    const seen = outputOf(dev);
    await seen.until('deviecer');
    expect(seen.text()).toContain('inbox/reverser#0');
    writeFileSync(
      join(folder, 'emails/newer.eml'),
      'To: reverser@example.com\r\nFrom: b@x.example\r\n\r\nabc',
    );
    await seen.until('cba');
    dev.kill('SIGTERM');
    expect((await once(dev, 'exit'))[0]).toBe(0);
    await store.close();
  });

  it('takes the email and the inbox that it is told', async () => {
    const eml = join(base, 'elsewhere.eml');
    writeFileSync(eml, 'From: b@example.net\r\nTo: nobody@example.com\r\n\r\nxyz\r\n');
    const dev = start(process.execPath, [...main, 'dev', folder, '--eml', eml, '--inbox', 'reverser']);
    await outputOf(dev).until('zyx');
    dev.kill('SIGTERM');
    expect((await once(dev, 'exit'))[0]).toBe(0);
  });
});

it('a change is shown line by line, what is gone first', () => {
  expect(changeText('a\nb\nc', 'a\nx\nc')).toBe('  a\n- b\n+ x\n  c');
});

it('without emails there is none', () => {
  expect(lastEmailIn(join(folder, 'tools'))).toBeNull();
});

/** Before a command: a network that has nothing but a loopback, which is down. */
function withoutNetwork(): string[] {
  const prefix = ['unshare', '--map-root-user', '--net'];
  if (spawnSync(prefix[0]!, [...prefix.slice(1), 'true']).status === 0) return prefix;
  const message = 'there are no network namespaces here: that `npm test` needs no network is NOT tested';
  if (process.env['REQUIRE_NETNS'] === '1') throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n\n`);
  return [];
}

type Process = ChildProcessByStdio<null, Readable, Readable>;
interface Ended {
  status: number;
  output: string;
}

function start(file: string, args: readonly string[], { cwd = root }: { cwd?: string } = {}): Process {
  const PATH = `${dirname(process.execPath)}:${process.env['PATH']}`;
  const child = spawn(file, args, {
    cwd,
    env: programEnvironment({ PATH, HOME: base }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  return child;
}

/** What it has printed so far; `until` resolves when that holds something. */
function outputOf(child: Process): {
  text: () => string;
  until: (expected: string | RegExp) => Promise<void>;
} {
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const holds = (expected: string | RegExp): boolean =>
    typeof expected === 'string' ? output.includes(expected) : expected.test(output);
  return {
    text: () => output,
    async until(expected) {
      while (!holds(expected)) {
        const isOver = once(child, 'exit').then(() => {
          throw new Error(`it ended without ${expected}:\n${output}`);
        });
        await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data'), isOver]);
      }
    },
  };
}

async function ended(child: Process): Promise<Ended> {
  const { text } = outputOf(child);
  const [status] = (await once(child, 'close')) as [number];
  return { status, output: text() };
}

/** The first place that says so. */
function edit(old: string, fresh: string): void {
  const source = readFileSync(tools, 'utf8');
  expect(source).toContain(old);
  writeFileSync(tools, source.replace(old, fresh));
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

/** One that has ended and that nobody has asked about yet does not run. */
function isRunning(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
