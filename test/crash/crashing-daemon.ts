/**
 * The real daemon, composed as `main.ts` composes it, that kills itself where it is told to, and whose clock
 * can be wrong: `node test/crash/crashing-daemon.ts '{"clockOffsetMs":0,"clockRate":1}'`.
 *
 * The environment is the daemon's own. A line on standard input is a kill plan; the end of standard input is
 * the end of whoever started it, and ends it too.
 */
import { createInterface } from 'node:readline';
import { createApp } from '../../src/app.ts';
import { systemClock } from '../../src/platform/clock.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { createLog } from '../../src/platform/log.ts';
import { createExecutioner, executeSends, executedStore } from './kill-plan.ts';
import type { KillPlan } from './kill-plan.ts';

export interface CrashingDaemonOptions {
  /** How far its wall clock is ahead of the machine's. */
  clockOffsetMs?: number;
  /** How many times as fast its monotonic clock runs: what is due every 30 s comes all the time. */
  clockRate?: number;
  /** Armed from the start, so that it can strike while the daemon recovers. */
  kill?: KillPlan;
}

function wrongClock({ clockOffsetMs = 0, clockRate = 1 }: CrashingDaemonOptions): Clock {
  return {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + clockOffsetMs,
    monotonicMs: () => systemClock.monotonicMs() * clockRate,
  };
}

const options = JSON.parse(process.argv[2] ?? '{}') as CrashingDaemonOptions;
const executioner = createExecutioner();
if (options.kill) executioner.arm(options.kill);
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const plans = createInterface({ input: process.stdin });
plans.on('line', (line) => executioner.arm(JSON.parse(line) as KillPlan));
plans.once('close', () => stop.abort());
executeSends(executioner);

const { config, secrets } = loadConfig();
await using app = await createApp({
  config,
  secrets,
  clock: wrongClock(options),
  log: createLog(config.logLevel),
  roles: ['ingest', 'runner', 'outbox'],
  wrapStore: (store) => executedStore(store, executioner),
});
await app.run(stop.signal);
process.stdin.destroy();
