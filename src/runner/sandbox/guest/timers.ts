/** Timers and microtasks: the host keeps the time, and calls `fireTimer` when one is due; the callbacks stay here. */
import { describeFailure } from './describe.ts';
import { tellHost } from './host.ts';

const timers = new Map<number, { callback: () => void; everyMs: number | null }>();
let lastTimer = 0;

export function fireTimer(id: number): void {
  const timer = timers.get(id);
  if (!timer) return;
  if (timer.everyMs === null) timers.delete(id);
  else tellHost('timer', { id, ms: timer.everyMs });
  try {
    timer.callback();
  } catch (error) {
    tellHost('failed', { reason: 'threw', ...describeFailure(error) });
  }
}

function startTimer(callback: unknown, options: { ms: unknown; repeats: boolean; args: unknown[] }): number {
  if (typeof callback !== 'function') throw new TypeError('the callback is not a function');
  const ms = Math.max(Number(options.ms) || 0, 1);
  const id = ++lastTimer;
  timers.set(id, {
    callback: () => void Reflect.apply(callback, undefined, options.args),
    everyMs: options.repeats ? ms : null,
  });
  tellHost('timer', { id, ms });
  return id;
}

export const setTimeout = (callback: unknown, ms?: unknown, ...args: unknown[]): number =>
  startTimer(callback, { ms, repeats: false, args });

export const setInterval = (callback: unknown, ms?: unknown, ...args: unknown[]): number =>
  startTimer(callback, { ms, repeats: true, args });

export const clearTimer = (id: unknown): void => {
  if (timers.delete(Number(id))) tellHost('clear-timer', String(Number(id)));
};

export function queueMicrotask(callback: unknown): void {
  if (typeof callback !== 'function') throw new TypeError('the callback is not a function');
  void Promise.resolve().then(() => void Reflect.apply(callback, undefined, []));
}
