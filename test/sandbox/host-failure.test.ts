/** What becomes of a run, and of its process, when the host cannot do just now what a capability promises. */
import { beforeEach, describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import { limits, useSandbox } from '../runner/tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

let asked = 0;
beforeEach(() => {
  asked = 0;
});
const capabilities = {
  authentication: () => {
    asked += 1;
    return Promise.reject(new MillraceError('transient', 'test.not_now', 'not now'));
  },
};

describe.each([
  ['lets it end the run', 'await email.authentication()'],
  ['catches it', 'try { await email.authentication() } catch { return "as if nothing were" }'],
])('a tool that %s', (_, body) => {
  // Mail of one sender whose DNS was silent cost a process each time it was tried.
  it('is to be tried again, and costs no process', async () => {
    const before = sandbox.pool.stats().starts;
    for (let run = 0; run < 5; run++)
      await expect(sandbox.runBody(body, { capabilities })).rejects.toMatchObject({ code: 'test.not_now' });
    expect(asked).toBe(5);
    expect(sandbox.pool.stats().starts).toBe(before);
  });
});

it('a tool that catches it and goes on to ask for more is stopped at once', async () => {
  const body = 'for (;;) await email.authentication().catch(() => {})';
  await expect(sandbox.runBody(body, { capabilities })).rejects.toMatchObject({ code: 'test.not_now' });
  expect(asked).toBe(1);
});

it('a tool that then takes its process down has failed by that', async () => {
  const body = 'await email.authentication().catch(() => {}); for (;;);';
  const request = { capabilities, limits: { ...limits, timeoutMs: 300 } };
  expect(await sandbox.runBody(body, request)).toMatchObject({ status: 'failed', reason: 'timeout' });
});
