/** What one run may hold of the daemon's memory by `fetch`, and what all may; nothing is measured but what is counted. */
import { expect, it } from 'vitest';
import { createBudget } from '../../src/platform/budget.ts';
import { createFetchBudget } from '../../src/runner/fetch-budget.ts';

const { signal } = new AbortController();
const MIB = 1024 * 1024;

/** Takes each amount, and says which have got it so far. */
async function takers(budget: ReturnType<typeof createBudget>, amounts: readonly number[]) {
  const got: { index: number; lease: Disposable }[] = [];
  for (const [index, amount] of amounts.entries())
    void budget.take(amount, signal).then((lease) => got.push({ index, lease }));
  await settled();
  return got;
}

/** Until all that can go on has gone on. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const indexesOf = (got: { index: number }[]): number[] => got.map(({ index }) => index);

it('lets wait what does not fit, and in turn, whatever would fit behind it', async () => {
  const got = await takers(createBudget(10), [6, 3, 4, 1]);
  expect(indexesOf(got)).toEqual([0, 1]);
  got[0]!.lease[Symbol.dispose]();
  got[0]!.lease[Symbol.dispose]();
  await settled();
  expect(indexesOf(got)).toEqual([0, 1, 2, 3]);
});

it('lets pass what counts nothing, and cuts what would never fit', async () => {
  const budget = createBudget(10);
  expect(indexesOf(await takers(budget, [1_000, 1, 0])).toSorted()).toEqual([0, 2]);
  expect(budget.taken).toBe(10);
});

it('forgets who gives up, and lets in who waited behind', async () => {
  const process = createBudget(10);
  const run = createBudget(8, process);
  const [other] = await takers(process, [6]);
  const gaveUp = new AbortController();
  const first = run.take(8, gaveUp.signal);
  const behind = await takers(run, [4]);
  gaveUp.abort(new Error('the tool gave up'));
  await expect(first).rejects.toThrow('the tool gave up');
  await settled();
  expect(indexesOf(behind)).toEqual([0]);
  other!.lease[Symbol.dispose]();
  behind[0]!.lease[Symbol.dispose]();
  expect([run.taken, process.taken]).toEqual([0, 0]);
});

it('is one body of the largest size for a run, and six for a process, each way', async () => {
  const budget = createFetchBudget();
  const runs = Array.from({ length: 8 }, () => budget.ofRun());
  const got = await Promise.all(
    runs.flatMap(({ requests, responses }) => [
      takers(requests, [10 * MIB, 10 * MIB]),
      takers(responses, [10 * MIB, 10 * MIB]),
    ]),
  );
  expect(got.flat()).toHaveLength(12);
  expect([budget.requests.taken, budget.responses.taken]).toEqual([60 * MIB, 60 * MIB]);
});
