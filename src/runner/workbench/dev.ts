/**
 * `millrace dev` and `millrace check`: what an author does before a push, judged as a server judges. `check` looks once;
 * `dev` looks at each change of a file, then tries the tools on the last email and shows what has become of the
 * reply, compared with the one before.
 */
import { diff, styleText } from 'node:util';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Clock } from '../../platform/clock.ts';
import { MillraceError } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { bundleTools } from '../bundle.ts';
import type { ToolBundle } from '../bundle.ts';
import { createFolderSource } from '../folder-source.ts';
import { createSandboxPool } from '../sandbox/pool.ts';
import { createCheckedBuild } from '../sync/checked-build.ts';
import type { ToolFiles } from '../tool-set.ts';
import type { StreamStore } from '../../streams/stream-store.ts';
import { servedBy, toolRevision } from '../tool-revision.ts';
import { lastReceived } from './last-received.ts';
import type { ReceivedEmail } from './last-received.ts';
import { assertTools, lastEmailIn, readEmail, toolFilesIn, tryTools } from './trial.ts';
import type { Trial } from './trial.ts';

export interface WorkbenchDeps {
  clock: Clock;
  log: Log;
  print: (text: string) => void;
}

export interface DevOptions {
  directory: string;
  /** An email to try; null: the newest one in the folder `emails`, or the last one that came to `openStreams`. */
  emlPath: string | null;
  /** The streams of this machine's daemon, to be read; null where there are none. */
  openStreams: (() => Promise<StreamStore>) | null;
  inbox: string | null;
  secrets: Readonly<Record<string, string>>;
}

const SAMPLE = new TextEncoder().encode(
  [
    'From: Ann Example <ann@example.net>',
    'To: sample@example.com',
    'Subject: A sample',
    'Message-ID: <sample@example.net>',
    '',
    'Hello, this is a sample. Put a message of your own (.eml) into the folder emails.',
    '',
  ].join('\r\n'),
);
/** These object to a bundle that is whole. */
const RUNS_ALL_THE_SAME: readonly string[] = ['tools.types_wrong', 'tools.tests_failed'];
const INBOX_NAMES =
  'an inbox has letters, digits, ".", "_" and "-" in its name, begins with a letter or digit, and is at most 64 bytes long.';
const COLOURS: Record<string, 'red' | 'green' | 'dim' | 'bold'> = { '-': 'red', '+': 'green' };

/** @throws MillraceError what does not build, has wrong types or fails its tests, with file, line and column */
export async function checkTools(deps: WorkbenchDeps, directory: string, signal: AbortSignal): Promise<void> {
  const pool = createSandboxPool(deps, { minChildren: 1 });
  try {
    const files = toolFilesIn(resolve(directory));
    assertTools(files);
    const bundle = await createCheckedBuild({ clock: deps.clock, pool })(files, signal);
    deps.print(summary(bundle));
  } finally {
    await pool.close();
  }
}

/** Until the signal is aborted. */
export async function developTools(
  deps: WorkbenchDeps,
  options: DevOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, print } = deps;
  const directory = resolve(options.directory);
  // A folder may get its tools while it is watched.
  if (!existsSync(directory)) assertTools({ directory });
  const pool = createSandboxPool({ clock, log }, { minChildren: 1 });
  const build = createCheckedBuild({ clock, pool });
  const before = new Map<string, string>();

  async function look(files: ToolFiles): Promise<void> {
    let bundle: ToolBundle;
    try {
      bundle = await build(files, signal);
      print(coloured('bold', `\n✓ ${summary(bundle)}`));
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MillraceError)) throw error;
      print(coloured('red', `\n✗ ${error.message}`));
      // What it would do now is of use to who mends it.
      if (!RUNS_ALL_THE_SAME.includes(error.code)) return;
      bundle = await bundleTools({ ...files, clock, pool, signal });
    }
    try {
      const { name, raw, inbox } = await emailToTry(bundle);
      print(coloured('dim', name ?? 'A sample email; yours go into emails/.'));
      const trials = await tryTools(pool, { ...options, bundle, raw, inbox, signal });
      for (const trial of trials) showTrial(trial, name);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof MillraceError) || error.kind === 'bug') throw error;
      print(coloured('red', `✗ ${error.message}`));
    }
  }

  /** Of the newest file and the last mail received the later one. */
  async function emailToTry(
    bundle: ToolBundle,
  ): Promise<{ name: string | null; raw: Uint8Array; inbox: string | null }> {
    const { emlPath, inbox } = options;
    if (emlPath !== null) return { name: emlPath, raw: readEmail(emlPath), inbox };
    const file = lastEmailIn(directory);
    const received = options.openStreams === null ? null : await lastOf(options.openStreams);
    if (received && received.atMs > (file?.changedMs ?? 0)) {
      // A mail may be for another inbox than its header names.
      const isServed = toolRevision(bundle).toolOf.has(received.inbox);
      return { ...received, inbox: inbox ?? (isServed ? received.inbox : null) };
    }
    return file ? { name: file.path, raw: readEmail(file.path), inbox } : { name: null, raw: SAMPLE, inbox };
  }

  async function lastOf(open: () => Promise<StreamStore>): Promise<ReceivedEmail | null> {
    const store = await open();
    try {
      return await lastReceived(store, { inbox: options.inbox, signal });
    } finally {
      await store.close();
    }
  }

  function showTrial({ tool, text, logs, hasFailed }: Trial, path: string | null): void {
    const key = `${tool}\n${path}`;
    const old = before.get(key);
    before.set(key, text);
    print(
      coloured(
        'bold',
        `── ${tool} ${old === undefined ? '' : old === text ? '(as before)' : '(changed)'}`.trimEnd(),
      ),
    );
    for (const line of logs) print(coloured('dim', `   log: ${line}`));
    if (old !== undefined && old !== text) return print(changeText(old, text));
    if (old === undefined) print(hasFailed ? coloured('red', text) : text);
  }

  try {
    const files = toolFilesIn(directory);
    // The whole folder is watched: an email or a lockfile that changes counts, too.
    await createFolderSource({ clock, log }, { directory }).run({ load: () => look(files) }, signal);
  } finally {
    await pool.close();
  }
}

/** Both replies, line by line: `-` is gone, `+` has come. */
export function changeText(old: string, fresh: string): string {
  const lines = diff(old.split('\n'), fresh.split('\n')).map(([side, line]) => ({
    mark: side === 1 ? '-' : side === -1 ? '+' : ' ',
    line,
  }));
  return lines
    .map(({ mark, line }) => {
      const colour = COLOURS[mark];
      return colour ? coloured(colour, `${mark} ${line}`) : `${mark} ${line}`;
    })
    .join('\n');
}

function summary(bundle: ToolBundle): string {
  const { revision, exports, tests } = bundle;
  const count = Object.values(tests).flat().length;
  const right = `${exports.join(', ')}: types are right, ${count} tests hold (revision ${revision})`;
  const { unreachable = [] } = servedBy(toolRevision(bundle));
  if (unreachable.length === 0) return right;
  return `${right}\nNo mail can reach ${unreachable.map((name) => JSON.stringify(name)).join(', ')}: ${INBOX_NAMES}`;
}

/** On a terminal alone, and not where NO_COLOR is set. */
function coloured(colour: 'red' | 'green' | 'dim' | 'bold', text: string): string {
  return styleText(colour, text, { stream: process.stdout });
}
