/**
 * Signed webhooks to a daemon while something happens to it, each on a connection of its own, without a second
 * try: so a refused connection shows. Run in the daemon's network:
 *   webhook-load.ts STAND-IN-URL WEBHOOK-URL SECONDS
 * Ends with a failure if a connection was refused or broken, an email was not answered, or one was answered
 * twice. A 503 counts as a refusal, too: no part of a restart may answer that the store is away.
 */
import { request } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { Webhook } from 'svix';
import { connectResendStandIn } from '../resend-stand-in/client.ts';

const [standInUrl = '', webhookUrl = '', seconds = '5'] = process.argv.slice(2);
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const PAUSE_MS = 20;
const ANSWER_DEADLINE_MS = 60_000;

const standIn = connectResendStandIn(standInUrl);
const verifier = new Webhook(SECRET);
const before = (await standIn.accepted()).length;
const run = Date.now();
const faults: string[] = [];
const sending: Promise<void>[] = [];

for (const endMs = performance.now() + Number(seconds) * 1000; performance.now() < endMs;) {
  sending.push(send(sending.length).catch((error: unknown) => void faults.push(String(error))));
  await pause(PAUSE_MS);
}
await Promise.all(sending);
if (faults.length > 0)
  throw new Error(`${faults.length} of ${sending.length} webhooks were not taken, the first: ${faults[0]}`);
const accepted = await standIn.waitForAccepted(before + sending.length, ANSWER_DEADLINE_MS);
const texts = accepted.slice(before).map(({ payload }) => payload.text?.trim().split('\n')[0]);
const twice = texts.filter((text, index) => texts.indexOf(text) !== index);
if (twice.length > 0) throw new Error(`answered twice: ${twice.join(', ')}`);
process.stdout.write(`${sending.length} webhooks, none refused, each answered once\n`);

async function send(number: number): Promise<void> {
  const raw = [
    `From: ann${number}@sender.example`,
    'To: reverser@example.com',
    'Subject: hi',
    `Message-ID: <${run}.${number}@sender.example>`,
    '',
    `${run}-${number}`,
    '',
  ].join('\r\n');
  const { emailId } = await standIn.deliver(raw, { silent: true });
  const data = {
    email_id: emailId,
    from: `ann${number}@sender.example`,
    received_for: ['reverser@example.com'],
  };
  const addresses = { to: ['reverser@example.com'], cc: [], bcc: [] };
  const at = new Date();
  const body = JSON.stringify({
    type: 'email.received',
    created_at: at.toISOString(),
    data: {
      ...data,
      ...addresses,
      created_at: at.toISOString(),
      message_id: '',
      subject: 'hi',
      attachments: [],
    },
  });
  const status = await post(body, {
    'content-type': 'application/json',
    connection: 'close',
    'svix-id': `msg_${emailId}`,
    'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
    'svix-signature': verifier.sign(`msg_${emailId}`, at, body),
  });
  if (status !== 200) throw new Error(`status ${status}`);
}

function post(body: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    request(`${webhookUrl}/webhooks/resend`, { method: 'POST', headers, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    })
      .on('error', reject)
      .end(body);
  });
}
