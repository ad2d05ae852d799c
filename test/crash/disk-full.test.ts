/**
 * The disk of the store is full when a webhook comes: 5xx, it is told, nothing is lost, and mail flows again by itself
 * when there is room. The disk is a small tmpfs; where none can be mounted (no root), this says loudly that it did not run, and
 * with `REQUIRE_NETNS=1`, which asks for root as well, fails.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, rmdirSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { plainMail } from '../e2e/mail.ts';
import { s2Binary } from '../streams/s2-lite.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import type { Streams } from './crash-world.ts';
import { textOf } from './tally.ts';

const DISK_MB = 64;
const TIMEOUT_MS = 120_000;
const MIN_FILL_BYTES = 1024;

let disk: string;
let isMounted: boolean;

beforeEach(() => {
  disk = mkdtempSync(join(tmpdir(), 'millrace-disk-'));
  isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m`, 'tmpfs', disk]).status === 0;
  if (isMounted) return;
  const message = 'no tmpfs can be mounted here: a full disk is not tested';
  if (process.env['REQUIRE_NETNS']) throw new Error(message);
  process.stderr.write(`\n*** ${message} ***\n`);
});
afterEach(() => {
  vi.unstubAllEnvs();
  if (isMounted) spawnSync('umount', ['--lazy', disk]);
  rmdirSync(disk);
});

const stores = s2Binary() === null ? (['local'] as const) : (['local', 's2'] as const);

describe.each<Streams>([...stores])('the disk of the %s store is full when a webhook comes', (streams) => {
  it(
    'answers 503, and goes on by itself when there is room',
    async ({ skip }) => {
      if (!isMounted) skip();
      // Everything of this world lies there.
      vi.stubEnv('TMPDIR', disk);
      const world = await createCrashWorld(streams);
      try {
        const daemon = world.start();
        await world.resend.deliver(mail('before'), retries(100));
        await world.resend.waitForAccepted(1, TIMEOUT_MS);

        // One mail is with its tool; what comes of it has no room either.
        const called = world.calls.hold(1);
        await world.resend.deliver(mail('under way', 'held'), retries(100));
        await called;
        const free = fill();
        world.calls.release();
        const refused = await world.resend.deliver(mail('during'));
        expect(refused.status).toBe(503);
        const told = await fetch(`${world.url}/readyz`);
        expect([told.status, await told.text()]).toEqual([503, expect.stringContaining('takes no records')]);
        free();
        // Nothing is delivered until it says so.
        while (!(await fetch(`${world.url}/readyz`)).ok) await sleep(200);

        for (let status: number | null = null; status !== 200;)
          status = await world.resend.redeliver(refused.svixId);
        await world.resend.deliver(mail('after'), retries(100));
        const answers = await world.resend.waitForAccepted(4, TIMEOUT_MS);
        expect(answers.map(textOf).toSorted()).toEqual(['after', 'before', 'during', 'under way']);
        expect(daemon.isGone()).toBe(false);
        expect(await daemon.stop()).toBe(0);
        expect(await world.resend.accepted()).toHaveLength(4);
      } finally {
        await world.stop();
      }
    },
    TIMEOUT_MS,
  );
});

const mail = (text: string, inbox = 'echo'): string => {
  const id = text.replace(' ', '-');
  return plainMail({ id, text, to: `${inbox}@${DOMAIN}`, from: `P <${id}@sender.example>` });
};
const retries = (count: number) => ({ retryDelaysMs: Array<number>(count).fill(500) });

/** To the last kilobyte. @returns makes room again */
function fill(): () => void {
  const path = join(disk, 'filler');
  const file = openSync(path, 'w');
  for (let block = Buffer.alloc(1024 ** 2); block.length >= MIN_FILL_BYTES;) {
    try {
      writeSync(file, block);
    } catch {
      block = block.subarray(0, block.length / 2);
    }
  }
  closeSync(file);
  return () => rmSync(path);
}
