/** Which calls a sandbox process hands on to its host, and which wait in it. */
import { expect, it } from 'vitest';
import { createPendingCalls } from '../../src/runner/sandbox/pending-calls.ts';

const MI = 1024 * 1024;

/** The calls that were handed on, by their numbers, and what takes more: calls of so many characters. */
function calls() {
  const sent: number[] = [];
  const pending = createPendingCalls(({ call }) => sent.push(call));
  const add = (number: number, chars: number): void =>
    pending.add({ type: 'call', run: 1, call: number, name: 'fetch', argument: null }, chars);
  return { sent, pending, add };
}

it('small ones go on at once, past large ones that wait', () => {
  const { sent, pending, add } = calls();
  add(1, 10 * MI);
  add(2, 10 * MI);
  add(3, 1_000);
  expect(sent).toEqual([1, 3]);
  expect([pending.size, pending.inAll]).toEqual([3, 3]);
});

it('large ones go on in turn as those before them are answered', () => {
  const { sent, pending, add } = calls();
  for (const [index, chars] of [10, 4, 4, 60].entries()) add(index, chars * MI);
  expect(sent).toEqual([0, 1]);
  expect(pending.remove(0)).toBe('sent');
  expect(sent).toEqual([0, 1, 2]);
  expect([pending.remove(1), pending.remove(2)]).toEqual(['sent', 'sent']);
  // Too large for any host: it is the host that says so.
  expect(sent).toEqual([0, 1, 2, 3]);
});

it('one that is given up while it waits is never sent, and holds up nobody', () => {
  const { sent, pending, add } = calls();
  for (const [index, chars] of [8, 14, 4].entries()) add(index, chars * MI);
  expect(pending.remove(1)).toBe('unsent');
  expect(sent).toEqual([0, 2]);
  expect(pending.remove(1)).toBe('unknown');
});
