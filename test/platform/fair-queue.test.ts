/** Keys take turns, whatever order things come in. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFairQueue } from '../../src/platform/fair-queue.ts';

describe('the fair queue', () => {
  it('gives each key its turn, and each key’s items in order', () => {
    const queue = createFairQueue<string>({ maxOutPerKey: 9 });
    for (const item of ['a1', 'a2', 'a3', 'b1', 'c1', 'b2']) queue.push(item[0]!, item);
    expect(Array.from({ length: 7 }, () => queue.take())).toEqual([
      'a1',
      'b1',
      'c1',
      'a2',
      'b2',
      'a3',
      undefined,
    ]);
  });

  it('puts what is tried again before the rest of its key', () => {
    const queue = createFairQueue<string>({ maxOutPerKey: 9 });
    for (const item of ['a1', 'a2']) queue.push('a', item);
    queue.pushFront('a', queue.take()!);
    expect([queue.take(), queue.take()]).toEqual(['a1', 'a2']);
  });

  it('never has more of a key out than permitted, loses nothing, and knows what it could give', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('push' as const), key: fc.constantFrom('a', 'b', 'c') }),
      fc.record({ do: fc.constant('take' as const) }),
      fc.record({ do: fc.constant('release' as const) }),
      fc.record({ do: fc.constant('remove' as const) }),
    );
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 1, max: 3 }),
        (steps, maxOutPerKey) => {
          const queue = createFairQueue<{ key: string }>({ maxOutPerKey });
          const waiting: { key: string }[] = [];
          const out: string[] = [];
          const permitted = (key: string): number => maxOutPerKey - out.filter((held) => held === key).length;
          for (const { do: action, ...rest } of steps) {
            if (action === 'push') {
              const item = { key: (rest as { key: string }).key };
              queue.push(item.key, item);
              waiting.push(item);
            } else if (action === 'take') {
              const next = queue.next();
              const item = queue.take();
              if (item !== next) throw new Error('not the one it named');
              if (item && permitted(item.key) === 0) throw new Error('one too many');
              if (item) waiting.splice(waiting.indexOf(item), 1);
              if (!item && waiting.some(({ key }) => permitted(key) > 0)) throw new Error('it held one back');
              if (item) out.push(item.key);
            } else if (action === 'release' && out.length > 0) queue.release(out.shift()!);
            else if (action === 'remove' && waiting.length > 0) {
              const item = waiting.shift()!;
              queue.remove(item.key, item);
            }
            expect(queue.size).toBe(waiting.length);
            const takeable = ['a', 'b', 'c'].map((key) =>
              Math.min(permitted(key), waiting.filter((item) => item.key === key).length),
            );
            expect(queue.takeable).toBe(takeable.reduce((sum, count) => sum + count));
          }
          expect(queue.drain()).toHaveLength(waiting.length);
        },
      ),
    );
  });
});
