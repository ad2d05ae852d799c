/**
 * The guest's side of the border: one synchronous callback out, one function in.
 *
 * Everything in this folder runs inside the isolate, in the tool's own realm, before the tool's code does.
 * It protects the tool from nothing and the host from nothing: the host checks all that it is told. What it
 * captures here it captures so that a tool that patches built-ins still gets its own results right.
 */
import type { Settlement } from '../messages.ts';

const { parse, stringify } = JSON;

/** The host's callback; the closure that evaluates the prelude names it so. Answers a string, never throws. */
declare const $0: (operation: string, payload: string) => string;
const callback = $0;

export interface Answer {
  value: unknown;
  bytes: ArrayBuffer | undefined;
}

interface PendingCall {
  /** Made where the tool called: what goes wrong later is shown there. Its stack is made into text when asked for. */
  site: Error;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

const pendingCalls = new Map<number, PendingCall>();
let lastCall = 0;

export const toJson: (value: unknown) => string = stringify;
export const fromJson: (text: string) => unknown = parse;

export function tellHost(operation: string, payload: unknown): string {
  return callback(operation, typeof payload === 'string' ? payload : stringify(payload));
}

/** Calls a capability of the host. An error comes back as an `Error` with the host's message. */
export function callCapability(name: string, argument: unknown): { call: number; answer: Promise<Answer> } {
  const call = ++lastCall;
  const answer = new Promise<Answer>((resolve, reject) => {
    pendingCalls.set(call, { site: new Error(), resolve, reject });
  });
  tellHost('call', { call, name, argument });
  return { call, answer };
}

/** Gives up on a call: it is rejected here at once, and the host stops working on it. */
export function abortCall(call: number, reason: unknown): void {
  const pending = pendingCalls.get(call);
  if (!pending) return;
  pendingCalls.delete(call);
  tellHost('abort', String(call));
  pending.reject(reason);
}

export function settleCall(settlement: Settlement, bytes: ArrayBuffer | undefined): void {
  const pending = pendingCalls.get(settlement.call);
  if (!pending) return;
  pendingCalls.delete(settlement.call);
  if (settlement.ok) pending.resolve({ value: settlement.value, bytes });
  else pending.reject(errorAt(pending.site, String(settlement.value)));
}

/** The error of a call, with the place of the call for its stack. */
function errorAt(site: Error, message: string): Error {
  const error = new Error(message);
  const stack = String(site.stack);
  const frames = stack.indexOf('\n    at ');
  if (frames >= 0) error.stack = `Error: ${message}${stack.slice(frames)}`;
  return error;
}
