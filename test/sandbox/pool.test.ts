/** Who runs when: fairness, isolation of runs from one another, and the ends of a pool. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { frameOf } from '../../src/runner/sandbox/frames.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import { buildChildProgram, CHILD_LOADER } from '../../src/runner/sandbox/programs.ts';
import type { Capability } from '../../src/runner/sandbox/sandbox.ts';
import { email, isRunning, limits, repliesOf, sandboxPids, useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 2, maxChildren: 2 });

/** A capability that answers when the test says so, and says when it was asked. */
function gate(): { capability: Capability; asked: Promise<void>; open: () => void; signals: AbortSignal[] } {
  const asked = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const signals: AbortSignal[] = [];
  return {
    asked: asked.promise,
    open: opened.resolve,
    signals,
    capability: async (_argument, signal) => {
      signals.push(signal);
      asked.resolve();
      await opened.promise;
      return { value: { status: 200, headers: [] } };
    },
  };
}

const waits = `await context.fetch('https://example.com'); return 'waited';`;

it('a tool that spins delays nobody: another inbox is answered beside it', async () => {
  const spinning = sandbox.runBody('for (;;);', {
    fairnessKey: 'spinning',
    limits: { ...limits, timeoutMs: 1_500 },
  });
  let isSpinning = true;
  void spinning.then(() => (isSpinning = false));
  const others = await Promise.all(
    Array.from({ length: 5 }, () => sandbox.runBody('return "quick";', { fairnessKey: 'quick' })),
  );
  for (const other of others) expect(repliesOf(other)).toEqual([{ text: 'quick' }]);
  expect(isSpinning).toBe(true);
  expect(await spinning).toMatchObject({ reason: 'timeout' });
});

it('one inbox cannot take every child, however much waits in it', async () => {
  const held = gate();
  const bundle = await sandbox.bundle(`export const slow = async (email, context) => { ${waits} };
    export const quick = () => 'quick';`);
  const slow = Array.from({ length: 10 }, () =>
    sandbox.run(bundle, {
      exportName: 'slow',
      fairnessKey: 'slow',
      capabilities: { fetch: held.capability },
    }),
  );
  await held.asked;
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'quick', fairnessKey: 'quick' }))).toEqual([
    { text: 'quick' },
  ]);
  expect(held.signals).toHaveLength(1);
  held.open();
  for (const run of await Promise.all(slow)) expect(repliesOf(run)).toEqual([{ text: 'waited' }]);
});

it('a child that is killed from outside costs its run nothing but time', async () => {
  const held = gate();
  const run = sandbox.runBody(waits, { capabilities: { fetch: held.capability } });
  await held.asked;
  const before = sandboxPids();
  for (const pid of before) process.kill(pid, 'SIGKILL');
  held.open();
  expect(repliesOf(await run)).toEqual([{ text: 'waited' }]);
  expect(held.signals).toHaveLength(2);
  expect(sandboxPids().some((pid) => before.includes(pid))).toBe(false);
});

it('a run whose process is killed again and again is given up', async () => {
  const kill: Capability = async () => {
    for (const pid of sandboxPids()) process.kill(pid, 'SIGKILL');
    return { value: { status: 200, headers: [] } };
  };
  const result = await sandbox.runBody(`${waits} for (;;);`, { capabilities: { fetch: kill } });
  expect(result).toMatchObject({
    status: 'failed',
    reason: 'crashed',
    message: expect.stringContaining('outside'),
  });
});

it('a signal to the group of processes leaves the draining to the parent', async () => {
  const held = gate();
  const run = sandbox.runBody(waits, { capabilities: { fetch: held.capability } });
  await held.asked;
  for (const pid of sandboxPids()) {
    process.kill(pid, 'SIGTERM');
    process.kill(pid, 'SIGINT');
  }
  held.open();
  expect(repliesOf(await run)).toEqual([{ text: 'waited' }]);
});

it('a process that does not even answer is killed when the time is over', async () => {
  const stop: Capability = async () => {
    for (const pid of sandboxPids()) process.kill(pid, 'SIGSTOP');
    return { value: { status: 200, headers: [] } };
  };
  const result = await sandbox.runBody(waits, {
    capabilities: { fetch: stop },
    limits: { ...limits, timeoutMs: 200 },
  });
  expect(result).toMatchObject({
    reason: 'timeout',
    message: expect.stringContaining('could not be stopped'),
  });
  // The other child was idle when it was stopped.
  for (const pid of sandboxPids()) process.kill(pid, 'SIGCONT');
  expect(repliesOf(await sandbox.runBody('return "next";'))).toEqual([{ text: 'next' }]);
});

it('a process dies with its parent, also while a tool spins in it', async () => {
  const owner = spawn(process.execPath, ['test/sandbox/pool-owner.ts'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(owner.stdout, 'data');
  const pids = sandboxPids(owner.pid);
  expect(pids).toHaveLength(1);
  owner.kill('SIGKILL');
  await once(owner, 'exit');
  await vi.waitFor(() => expect(isRunning(pids[0]!)).toBe(false), { timeout: 5_000 });
});

it('a process ends with its pipe, also where no layer around it sees to that', async () => {
  const alone = spawn(process.execPath, ['--no-node-snapshot', '--jitless', '-e', CHILD_LOADER]);
  alone.stdin.write(frameOf(await buildChildProgram()));
  await once(alone.stdout, 'data');
  alone.stdin.end();
  const [, signal] = (await once(alone, 'exit')) as [number | null, string | null];
  expect(signal).toBe('SIGKILL');
});

describe('a caller that gives up', () => {
  it('gets the reason of its signal, while running', async () => {
    const held = gate();
    const controller = new AbortController();
    const { capability } = held;
    const run = sandbox.runBody(waits, { signal: controller.signal, capabilities: { fetch: capability } });
    await held.asked;
    controller.abort(new Error('draining'));
    await expect(run).rejects.toThrow('draining');
    expect(repliesOf(await sandbox.runBody('return "next";'))).toEqual([{ text: 'next' }]);
    expect(held.signals[0]?.aborted).toBe(true);
  });

  it('gets it before anything ran', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(sandbox.runBody('return "x";', { signal })).rejects.toThrow('stopped');
  });
});

/** Stands still until it is told to go on; then what is due happens. */
function handClock(): typeof systemClock & { advance(ms: number): void } {
  let nowMs = 0;
  const timers = new Set<{ dueMs: number; callback: () => void }>();
  return {
    ...systemClock,
    monotonicMs: () => nowMs,
    after(ms: number, callback: () => void) {
      const timer = { dueMs: nowMs + ms, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    advance(ms: number) {
      nowMs += ms;
      for (const timer of timers) if (timer.dueMs <= nowMs && timers.delete(timer)) timer.callback();
    },
  };
}

it('the pool grows for a run that waits for long behind one that lasts long, and not for a burst', async () => {
  const clock = handClock();
  const options = { minChildren: 1, maxChildren: 2, maxRunsPerKey: 2 };
  const pool = createSandboxPool({ clock, log: createLog('silent') }, options);
  try {
    const bundle = await sandbox.bundle(`export const test = async (email, context) => { ${waits} }`);
    await pool.start();
    const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, email };
    const { signal } = new AbortController();
    const run = (fetch: Capability) => pool.run({ ...request, capabilities: { fetch }, signal });
    const gates = [gate(), gate()] as const;
    const runs = gates.map(({ capability }) => run(capability));
    const last = run(async () => ({ value: { status: 200, headers: [] } }));
    await gates[0].asked;
    clock.advance(90);
    gates[0].open();
    await gates[1].asked;
    clock.advance(60);
    expect(pool.stats(), 'the run in the way is a new one').toMatchObject({ waiting: 1, starts: 1 });
    clock.advance(100);
    expect(pool.stats()).toMatchObject({ waiting: 1, starts: 2 });
    expect(repliesOf(await last)).toEqual([{ text: 'waited' }]);
    gates[1].open();
    for (const result of await Promise.all(runs)) expect(repliesOf(result)).toEqual([{ text: 'waited' }]);
  } finally {
    await pool.close();
  }
});

it('the pool grows later behind a run that computes: it holds a processor, too', async () => {
  const clock = handClock();
  const options = { minChildren: 1, maxChildren: 2, maxRunsPerKey: 2 };
  const pool = createSandboxPool({ clock, log: createLog('silent') }, options);
  try {
    const bundle = await sandbox.bundle(
      'export const busy = (_, { log }) => { log("here"); for (;;); }; export const quick = () => "well";',
    );
    await pool.start();
    const request = { bundle, fairnessKey: 'x', secrets: {}, limits, email, capabilities: {} };
    const stop = new AbortController();
    const busy = pool.run({ ...request, exportName: 'busy', signal: stop.signal });
    const quick = pool.run({ ...request, exportName: 'quick', signal: new AbortController().signal });
    clock.advance(250);
    expect(pool.stats()).toMatchObject({ waiting: 1, starts: 1 });
    clock.advance(100);
    // Until it has really had a processor for so long.
    const grown = () => {
      clock.advance(1);
      return pool.stats();
    };
    await expect.poll(grown, { interval: 1, timeout: 10_000 }).toMatchObject({ waiting: 1, starts: 2 });
    expect(clock.monotonicMs(), 'it is the processor that counts').toBeLessThan(2_900);
    expect(repliesOf(await quick)).toEqual([{ text: 'well' }]);
    stop.abort(new Error('seen'));
    await expect(busy).rejects.toThrow('seen');
  } finally {
    await pool.close();
  }
});

it.runIf(process.platform === 'linux')(
  'the pool does not grow behind a run that waits for a processor, until it has lasted for very long',
  async () => {
    const others = sandboxPids();
    const clock = handClock();
    const options = { minChildren: 1, maxChildren: 2, maxRunsPerKey: 2 };
    const pool = createSandboxPool({ clock, log: createLog('silent') }, options);
    try {
      const bundle = await sandbox.bundle('export const test = () => "well";');
      await pool.start();
      const stopped = sandboxPids().filter((pid) => !others.includes(pid));
      for (const pid of stopped) process.kill(pid, 'SIGSTOP');
      const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, email };
      const { signal } = new AbortController();
      const runs = [1, 2].map(() => pool.run({ ...request, capabilities: {}, signal }));
      clock.advance(1_000);
      expect(pool.stats()).toMatchObject({ waiting: 1, starts: 1 });
      clock.advance(1_900);
      expect(pool.stats()).toMatchObject({ waiting: 1, starts: 1 });
      clock.advance(200);
      expect(pool.stats()).toMatchObject({ waiting: 1, starts: 2 });
      for (const pid of stopped) process.kill(pid, 'SIGCONT');
      for (const result of await Promise.all(runs)) expect(repliesOf(result)).toEqual([{ text: 'well' }]);
    } finally {
      await pool.close();
    }
  },
);

// The timers of a process that stood still are due before it reads what came meanwhile: answered mail was parked.
it('an answer that is on its way when the time is over counts', async () => {
  const clock = handClock();
  const pool = createSandboxPool({ clock, log: createLog('silent') }, { minChildren: 1, maxChildren: 1 });
  try {
    const bundle = await sandbox.bundle('export const test = () => "well";');
    const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, email };
    await pool.start();
    const running = pool.run({ ...request, capabilities: {}, signal: new AbortController().signal });
    clock.advance(limits.timeoutMs + 10_000);
    expect(repliesOf(await running)).toEqual([{ text: 'well' }]);
  } finally {
    await pool.close();
  }
});

// As where a machine is paused: the clock went on, the tool did not, and its mail was parked for ever.
it('a run that stood still together with its host is run again, and not told that it was slow', async () => {
  const calls: number[] = [];
  const pause: Capability = async () => {
    calls.push(calls.length);
    if (calls.length > 1) return { value: { status: 200, headers: [] } };
    const pids = sandboxPids();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const untilMs = performance.now() + 1_800;
    while (performance.now() < untilMs);
    for (const pid of pids) process.kill(pid, 'SIGCONT');
    return { value: { status: 200, headers: [] } };
  };
  const result = await sandbox.runBody(waits, {
    capabilities: { fetch: pause },
    limits: { ...limits, timeoutMs: 1_500 },
  });
  expect(repliesOf(result)).toEqual([{ text: 'waited' }]);
  expect(calls).toEqual([0, 1]);
});

it('a process that is an hour old has a successor after its next run', async () => {
  const clock = handClock();
  const pool = createSandboxPool({ clock, log: createLog('silent') }, { minChildren: 1, maxChildren: 1 });
  try {
    const bundle = await sandbox.bundle('export const test = () => "well";');
    const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, email };
    const { signal } = new AbortController();
    const run = () => pool.run({ ...request, capabilities: {}, signal });
    await pool.start();
    clock.advance(59 * 60 * 1_000);
    expect(repliesOf(await run())).toEqual([{ text: 'well' }]);
    expect(pool.stats().starts).toBe(1);
    clock.advance(60 * 1_000);
    expect(repliesOf(await run())).toEqual([{ text: 'well' }]);
    expect(pool.stats().starts).toBe(2);
  } finally {
    await pool.close();
  }
});

it('a process that has run enough is replaced before it is missed', async () => {
  const maxRunsPerChild = 3;
  const pool = createSandboxPool(
    { clock: systemClock, log: createLog('silent') },
    { minChildren: 1, maxChildren: 1, maxRunsPerChild },
  );
  try {
    const bundle = await sandbox.bundle(`export const test = async (email, context) => { ${waits} }`);
    const others = sandboxPids();
    const own = (): number[] => sandboxPids().filter((pid) => !others.includes(pid) && isRunning(pid));
    const run = async (): Promise<number[]> => {
      let seen: number[] = [];
      const fetch: Capability = async () => {
        seen = own();
        return { value: { status: 200, headers: [] } };
      };
      const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, email };
      const { signal } = new AbortController();
      expect(repliesOf(await pool.run({ ...request, capabilities: { fetch }, signal }))).toHaveLength(1);
      return seen;
    };
    await pool.start();
    const [first = 0] = own();
    for (let index = 0; index <= maxRunsPerChild; index++) expect(await run()).toContain(first);
    await vi.waitFor(async () => expect(await run()).not.toContain(first), { timeout: 10_000, interval: 1 });
    expect(own().length).toBeLessThanOrEqual(2);
  } finally {
    await pool.close();
  }
});

it('a pool that is closed takes nothing, twice, and leaves no process', async () => {
  const pool = createSandboxPool(
    { clock: systemClock, log: createLog('silent') },
    { minChildren: 1, maxChildren: 1 },
  );
  const bundle = await sandbox.bundle(`export const test = async () => { for (;;); };`);
  const before = sandboxPids();
  await pool.start();
  const request = { bundle, exportName: 'test', fairnessKey: 'x', secrets: {}, limits, capabilities: {} };
  const runs = [1, 2].map(() => pool.run({ ...request, email, signal: new AbortController().signal }));
  const settled = Promise.allSettled(runs);
  const own = sandboxPids().filter((pid) => !before.includes(pid));
  expect(own).toHaveLength(1);
  await pool.close();
  await pool.close();
  for (const result of await settled) {
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { code: 'sandbox.closed', kind: 'transient' },
    });
  }
  expect(sandboxPids()).not.toContain(own[0]);
  await expect(pool.start()).rejects.toMatchObject({ code: 'sandbox.closed' });
});
