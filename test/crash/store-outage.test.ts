/** The stream store is gone when a webhook comes: 5xx, patience, and recovery without help. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { plainMail } from '../e2e/mail.ts';
import { s2Binary } from '../streams/s2-lite.ts';
import { DOMAIN, createCrashWorld } from './crash-world.ts';
import { textOf } from './tally.ts';

const RETRY_MS = 500;
const TIMEOUT_MS = 120_000;
/** Until the webhook gives up its append (10 s), some ten followers and journals may each try again now and then. */
const MAX_CONNECTIONS = 500;

const mail = (text: string): string =>
  plainMail({ id: text, text, to: `echo@${DOMAIN}`, from: `P <${text}@sender.example>` });
const retries = (count: number) => ({ retryDelaysMs: Array<number>(count).fill(RETRY_MS) });

/** In the place of the store: takes a connection, counts it, and drops it. */
async function droppingServer(port: number) {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    socket.destroy();
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    connections: () => connections,
    async stop() {
      server.close();
      await once(server, 'close');
    },
  };
}

// Where there is no `s2`, `s2Binary` says loudly that this was not run.
describe.skipIf(s2Binary() === null)('s2 lite is down when a webhook comes', () => {
  it(
    'answers 503, storms nobody, and goes on by itself when the store is back',
    async () => {
      const world = await createCrashWorld('s2');
      try {
        const daemon = world.start();
        await world.resend.deliver(mail('before'), retries(100));
        await world.resend.waitForAccepted(1, TIMEOUT_MS);

        const down = await droppingServer(await world.killStore());
        const refused = await world.resend.deliver(mail('during'));
        expect(refused.status).toBe(503);
        expect(down.connections()).toBeGreaterThan(0);
        expect(down.connections()).toBeLessThan(MAX_CONNECTIONS);
        await down.stop();

        await world.startStore();
        await world.resend.deliver(mail('after'), retries(100));
        for (let status: number | null = null; status !== 200;)
          status = await world.resend.redeliver(refused.svixId);
        const answers = await world.resend.waitForAccepted(3, TIMEOUT_MS);
        expect(answers.map(textOf).toSorted()).toEqual(['after', 'before', 'during']);
        expect(daemon.isGone()).toBe(false);
        // The provider was asked for each mail about once: what failed waited.
        const asked = (await world.resend.requests()).filter(({ route }) => route === 'receive');
        expect(asked.length).toBeLessThan(10);
        expect(await daemon.stop()).toBe(0);
        expect(await world.resend.accepted()).toHaveLength(3);
      } finally {
        await world.stop();
      }
    },
    TIMEOUT_MS,
  );
});
