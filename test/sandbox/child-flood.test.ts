/**
 * A tool that has broken out of its isolate is the child process, and says what it likes over its pipe. Here that
 * process is a program of the test; what it floods us with ends at the limits on our side.
 */
import { afterEach, expect, it } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { createSandboxChild } from '../../src/runner/sandbox/child-process.ts';
import type { Outcome, SandboxChild } from '../../src/runner/sandbox/child-process.ts';
import type { Capability } from '../../src/runner/sandbox/sandbox.ts';
import { email, limits } from '../runner/tool-fixture.ts';

/** Says that it is ready, and begins as soon as it is given a run. */
const programOf = (flood: string): string => `
  const say = (message) => {
    const payload = Buffer.from(JSON.stringify({ run: 1, ...message }));
    const head = Buffer.alloc(4);
    head.writeUInt32BE(payload.length);
    process.stdout.write(Buffer.concat([head, payload]));
  };
  let call = 0;
  const askMuch = () => say({ type: 'call', call: ++call, name: 'ask', argument: 'x'.repeat(8 * 1024 * 1024) });
  const again = () => say({ type: 'ready' });
  const ask = () => say({ type: 'call', call: ++call, name: 'ask', argument: null });
  const log = () => say({ type: 'log', line: 'x'.repeat(100) });
  const always = (act) => { for (let n = 0; n < 50; n++) act(); setImmediate(always, act); };
  say({ type: 'ready' });
  process.stdin.once('data', () => { ${flood} });`;

let child: SandboxChild | undefined;
afterEach(async () => {
  child?.kill();
  await child?.closed;
});

async function started(program: string): Promise<SandboxChild> {
  const protections = { command: [], inForce: [], missing: [] };
  child = createSandboxChild({ clock: systemClock }, { program, protections, usesJit: false });
  await child.ready;
  return child;
}

async function outcomeOf(flood: string, capability: Capability): Promise<Outcome> {
  const sandbox = await started(programOf(flood));
  const task = { kind: 'call', exportName: 'a', email, nowMs: 0, randomSeed: '', secrets: {} } as const;
  const bundle = { revision: 'r', code: '', sourceMap: '' };
  return sandbox.run({ bundle, task, limits, capabilities: { ask: capability } });
}

const never: Capability = () => new Promise(() => {});
const answered: Capability = async () => ({ value: null });
const large: Capability = async () => ({ value: null, bytes: new Uint8Array(16 * 1024 * 1024) });
const wide = "say({ type: 'call', call: 1, name: 'ask', argument: Array(1_000_000).fill([]) });";
const unread = 'process.stdin.pause(); for (let n = 0; n < 30; n++) ask();';

it.each([
  ['a log without end', 'always(log);', never, 'log-flood', 'logged more than'],
  ['calls at once', 'always(ask);', never, 'call-flood', '100 at once'],
  ['calls that are large', 'for (let n = 0; n < 3; n++) askMuch();', never, 'call-flood', 'at once'],
  [
    'calls one after another',
    "process.stdin.on('data', ask); ask();",
    answered,
    'call-flood',
    '10000 in all',
  ],
  ['a start that never ends', 'always(again);', never, 'crashed', 'no message of ours'],
  [
    'messages of another run',
    'say({ type: "log", run: 7, line: "" });',
    never,
    'crashed',
    'no message of ours',
  ],
  ['a call of a million values', wide, never, 'crashed', 'no message of ours'],
  ['calls of one number', 'always(() => { call = 0; ask(); });', never, 'crashed', 'no message of ours'],
  ['calls whose answers it does not read', unread, large, 'call-flood', 'does not take the answers'],
] as const)('ends at %s', async (_name, flood, capability, reason, message) => {
  const outcome = await outcomeOf(flood, capability);
  expect(outcome).toMatchObject({ kind: 'failed', reason, message: expect.stringContaining(message) });
});

it.each([
  ['that says again that it is ready', 'ready'],
  ['of whom nobody wants anything', 'log'],
])('an idle process ends %s', async (_name, type) => {
  const message = JSON.stringify({ type, run: 0, line: '' });
  const idle = await started(`${programOf('')} always(() => say(${message}));`);
  await expect(idle.closed).resolves.toBeUndefined();
});

it('a process that goes on when its run has ended is not used again', async () => {
  const ends = `say({ type: 'returned', json: '{}' }); log();`;
  expect(await outcomeOf(ends, never)).toMatchObject({ kind: 'returned', json: '{}' });
  await expect(child!.closed).resolves.toBeUndefined();
});
