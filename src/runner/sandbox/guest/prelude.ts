/**
 * The first code in a fresh isolate: brings the Web's globals, then waits for the host to deliver.
 *
 * The host keeps the only reference to `deliver` and calls it with a timeout each time: to begin, to settle
 * a call, when a timer is due. So whatever a tool does after an `await`, it does inside such a call.
 */
import type { Delivery, GuestTask } from '../messages.ts';
import type { Context, Tool } from '../../tool-api.ts';
import type { ExportKind, FailureReason, RunEnd } from '../sandbox.ts';
import { clip, describeFailure, describeValue } from './describe.ts';
import type { Failure } from './describe.ts';
import { Effects } from './effects.ts';
import { emailFrom } from './email.ts';
import { fetch } from './fetch.ts';
import { installGlobals } from './globals.ts';
import { fromJson, settleCall, tellHost, toJson } from './host.ts';
import { judge, plainData, testOf } from './judge.ts';
import { InvalidResult } from './plain-value.ts';
import { createRandom } from './random.ts';
import { createState } from './state.ts';
import { fireTimer } from './timers.ts';

/** Where the bundle leaves its exports, or what it threw: see the banner in `bundle.ts`. */
interface Bundle {
  __millraceTools?: Record<string, unknown>;
  __millraceError?: { thrown: unknown };
}

installGlobals();

export function deliver(head: string, bytes: ArrayBuffer | undefined): void {
  const delivery = fromJson(head) as Delivery;
  if (delivery.kind === 'settle') settleCall(delivery, bytes);
  else if (delivery.kind === 'timer') fireTimer(delivery.id);
  else void begin(delivery.task);
}

async function begin(task: GuestTask): Promise<void> {
  const { __millraceTools: tools = {}, __millraceError: failure } = globalThis as Bundle;
  try {
    if (failure) throw failure.thrown;
    const outcome = task.kind === 'inspect' ? inspect(tools) : await runEnd(tools, task);
    tellHost('returned', toJson(outcome));
  } catch (error) {
    tellHost('failed', failureOf(error));
  }
}

function failureOf(error: unknown): Failure & { reason: FailureReason } {
  try {
    if (error instanceof InvalidResult)
      return { reason: 'invalid-result', message: clip(error.message), stack: '' };
    return { reason: 'threw', ...describeFailure(error) };
  } catch {
    // A Proxy whose traps throw, or built-ins that the tool has broken.
    return { reason: 'threw', message: 'threw what cannot be described', stack: '' };
  }
}

/** What comes of it; in a test nothing, unless it fails. */
async function runEnd(tools: Record<string, unknown>, task: GuestTask & { kind: 'call' }): Promise<RunEnd> {
  const run = async (): Promise<RunEnd> => call(tools, task);
  if (task.test === undefined) return run();
  await judge(testOf(tools['tests'], task.exportName, task.test), run);
  return { effects: [], state: {} };
}

async function call(tools: Record<string, unknown>, task: GuestTask & { kind: 'call' }): Promise<RunEnd> {
  const tool = Object.hasOwn(tools, task.exportName) ? tools[task.exportName] : undefined;
  if (typeof tool !== 'function') throw new Error(`there is no exported function ${task.exportName}`);
  const effects = new Effects();
  const { state, changes } = createState();
  const context = { ...contextFor(task), ...effects.functions, state };
  effects.add(await (tool as Tool)(emailFrom(task.email), context));
  return { effects: await effects.settled(), state: await changes() };
}

function contextFor(
  task: GuestTask & { kind: 'call' },
): Omit<Context, 'reply' | 'send' | 'forward' | 'state'> {
  return {
    fetch,
    now: () => new Date(task.nowMs),
    random: createRandom(task.randomSeed),
    log: (...values) => void tellHost('log', values.map(describeValue).join(' ')),
    secret: (name) => {
      const value = Object.hasOwn(task.secrets, name) ? task.secrets[name] : undefined;
      if (value === undefined) {
        throw new Error(`the secret ${name} is not granted: name it in settings.${task.exportName}.secrets`);
      }
      if (value === null) throw new Error(`the secret ${name} is granted but not set`);
      return value;
    },
  };
}

function inspect(tools: Record<string, unknown>): Record<'exports' | 'settings' | 'tests', unknown> {
  const exports = Object.keys(tools).map((name) => ({ name, kind: exportKind(tools[name]) }));
  return { exports, settings: plainData(tools['settings']), tests: plainData(tools['tests']) };
}

function exportKind(value: unknown): ExportKind {
  if (typeof value !== 'function') return 'value';
  // A class is a function, too, but not one that can be called: its `prototype` cannot be replaced.
  if (Object.getOwnPropertyDescriptor(value, 'prototype')?.writable === false) return 'class';
  // What it returns is not its answer, which nobody asks it for.
  return /Generator/.test(Object.prototype.toString.call(value)) ? 'generator' : 'function';
}
