/** An older release over the streams of a newer one: the real daemon refuses to start, and says so. */
import { execFile } from 'node:child_process';
import { expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { openLocalStore } from '../../src/streams/local-store.ts';
import { jsonRecord } from '../../src/streams/records.ts';
import { temporaryDirectory } from './daemon.ts';
import { programEnvironment } from '../program-environment.ts';

it.each([
  ['meta', { kind: 'format', version: 1, format: 99, release: '9.0.0', at: '2030-01-01T00:00:00Z' }],
  ['inbox/reverser', { kind: 'email', version: 2 }],
  ['sent', { kind: 'checkpoint', version: 2 }],
])('serve ends with 2 and a hint over a newer record on %s', async (name, body) => {
  await using directory = await temporaryDirectory();
  const options = { directory: directory.path, retentionFor: () => 'forever' as const };
  const store = await openLocalStore({ clock, log: createLog('silent') }, options);
  await store.stream(name).append([jsonRecord(body)]);
  await store.close();
  const { code, stderr } = await serve({ DATA_DIR: directory.path, PORT: '0' });
  expect(code).toBe(2);
  expect(stderr).toContain(name === 'meta' ? 'written by release 9.0.0' : name);
  expect(stderr).toContain('A newer release has worked on these streams');
});

function serve(variables: Record<string, string>): Promise<{ code: unknown; stderr: string }> {
  const args = ['src/main.ts', 'serve'];
  const env = programEnvironment(variables);
  return new Promise((resolve) => {
    execFile(process.execPath, args, { env }, (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    );
  });
}
