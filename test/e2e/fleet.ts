/**
 * Several real daemons on one basin of a real `s2 lite`, and what they say of themselves on `members`. A daemon
 * here may have no HTTP at all, run in a network of its own, be stopped and go on.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import { memberRecordSchema } from '../../src/streams/membership.ts';
import { parseJsonRecord, retentionFor, streamNames } from '../../src/streams/records.ts';
import { openS2Store } from '../../src/streams/s2-store.ts';
import type { StreamStore } from '../../src/streams/stream-store.ts';
import { readBodies } from '../streams/store-reading.ts';
import { programEnvironment } from '../program-environment.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const WAIT_MS = 25_000;

export interface FleetDaemon {
  readonly pid: number;
  /** Null for one without HTTP. */
  readonly url: string | null;
  output(): string;
  /** Sends a signal and does not wait. */
  signal(signal: NodeJS.Signals): void;
  readonly ended: Promise<unknown>;
}

/** Starts `serve` and waits until it says that it has started. `prefix` is a command that runs it. */
export async function startFleetDaemon(
  variables: Record<string, string>,
  { args = [], prefix = [] }: { args?: readonly string[]; prefix?: readonly string[] } = {},
): Promise<FleetDaemon> {
  const [program, ...rest] = [...prefix, process.execPath, 'src/main.ts', 'serve', ...args];
  const child = spawn(program!, rest, {
    cwd: root,
    env: programEnvironment(variables),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  // A test that ends early must not leave daemons behind, nor stopped ones.
  process.once('exit', () => child.kill('SIGKILL'));
  let output = '';
  const started = Promise.withResolvers<{ url: string | null }>();
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text));
  createInterface({ input: child.stdout }).on('line', (line) => {
    output += `${line}\n`;
    if (line.includes('"daemon.started"')) started.resolve(JSON.parse(line) as { url: string | null });
  });
  void ended.then(() => started.reject(new Error(`the daemon did not start:\n${output}`)));
  const { url } = await started.promise;
  return { pid: child.pid!, url, output: () => output, signal: (signal) => void child.kill(signal), ended };
}

/**
 * A folder of tools, one for each inbox; each takes a moment, so that some are always under way. Those that count
 * give each email of their inbox a number.
 */
export async function writeTools(
  directory: string,
  inboxes: readonly string[],
  counting: readonly string[] = [],
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const moment = 'await new Promise((resolve) => setTimeout(resolve, 50));';
  const tools = inboxes.map((inbox) =>
    counting.includes(inbox)
      ? `export const ${inbox} = async (email, { state }) => {
  const number = ((await state.get('last')) ?? 0) + 1;
  ${moment}
  await state.set('last', number);
  return \`${inbox} got \${email.text.trim()} as \${number}\`;
};`
      : `export const ${inbox} = async (email) => {
  ${moment}
  return \`${inbox} got \${email.text.trim()}\`;
};`,
  );
  await writeFile(join(directory, 'index.ts'), `${tools.join('\n')}\n`);
}

type Holdings = ReadonlyMap<FleetDaemon, readonly string[]>;

export interface Basin extends AsyncDisposable {
  readonly store: StreamStore;
  /** Waits until what these daemons hold is as told, as the newest heartbeat of each says. */
  waitForHoldings(
    daemons: readonly FleetDaemon[],
    isAsExpected: (holdings: Holdings) => boolean,
  ): Promise<Holdings>;
  /** The outcomes on a journal that are final: number of the source record → how many there are. */
  finalOutcomes(journal: string): Promise<Map<number, number>>;
}

export async function openBasin(url: string, basin: string): Promise<Basin> {
  const log = createLog('silent');
  const store = await openS2Store(
    { clock: systemClock, log },
    {
      basin,
      accessToken: 'ignored',
      accountEndpoint: url,
      basinEndpoint: url,
      retentionFor: retentionFor(90),
    },
  );
  const newest = new Map<number, z.infer<typeof memberRecordSchema>>();
  const waiting = new Set<() => void>();
  const stop = new AbortController();
  const watching = (async () => {
    const follow = store.stream(streamNames.members).follow({ fromSeqNum: 0, signal: stop.signal });
    for await (const { records } of follow) {
      for (const record of records) {
        const member = parseJsonRecord(memberRecordSchema, record);
        newest.set(Number(member.process?.split(' ')[2]), member);
      }
      for (const look of waiting) look();
    }
  })();
  const holdingsOf = (daemons: readonly FleetDaemon[]): Holdings =>
    new Map(daemons.map((daemon) => [daemon, newest.get(daemon.pid)?.holds ?? []]));
  return {
    store,
    async waitForHoldings(daemons, isAsExpected) {
      const met = Promise.withResolvers<Holdings>();
      const look = (): void => {
        const holdings = holdingsOf(daemons);
        if (isAsExpected(holdings)) met.resolve(holdings);
      };
      const cancel = systemClock.after(WAIT_MS, () => {
        const found = [...holdingsOf(daemons)].map(([{ pid }, held]) => `${pid}: ${held.join(' ')}`);
        met.reject(new Error(`not as expected for too long:\n${found.join('\n')}`));
      });
      waiting.add(look);
      look();
      return met.promise.finally(() => {
        waiting.delete(look);
        cancel();
      });
    },
    async finalOutcomes(journal) {
      const counts = new Map<number, number>();
      for (const body of await readBodies(store.stream(journal))) {
        const { data } = outcomeSchema.safeParse(JSON.parse(body));
        if (data && data.outcome !== 'deferred') counts.set(data.seqNum, (counts.get(data.seqNum) ?? 0) + 1);
      }
      return counts;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
      await store.close();
    },
  };
}
