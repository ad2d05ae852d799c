/**
 * One mail through a server that setup.sh made, as the world sees it: a signed webhook to its HTTPS, checked
 * against Caddy's own authority, and the reply at the stand-in for Resend. Run in that machine's network:
 *   mail-through-caddy.ts STAND-IN-URL PUBLIC-URL CA-FILE TEXT EXPECTED-REPLY [COPIES]
 * It ends with a failure unless exactly one reply comes, with the text that is expected.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { Resend } from 'resend';
import { Webhook } from 'svix';
import { connectResendStandIn } from '../resend-stand-in/client.ts';

const [standInUrl = '', publicUrl = '', caFile = '', text = '', expected = '', copies = '1'] =
  process.argv.slice(2);
const REPLY_DEADLINE_MS = 60_000;
const MAX_ATTEMPTS = 60;
const ATTEMPT_PAUSE_MS = 500;
const mailDomain = process.env['MAIL_DOMAIN'] ?? 'agents.example.com';
const apiKey = process.env['RESEND_API_KEY'] ?? 're_test';

const standIn = connectResendStandIn(standInUrl);
const endpoint = `${publicUrl}/webhooks/resend`;

const raw = [
  'From: Ann <ann@sender.example>',
  `To: reverser@${mailDomain}`,
  'Subject: hi',
  `Message-ID: <${Date.now()}@sender.example>`,
  'Return-Path: <ann@sender.example>',
  '',
  text,
  '',
].join('\r\n');

const before = (await standIn.accepted()).length;
const { emailId } = await standIn.deliver(raw, { silent: true });
const body = JSON.stringify({
  type: 'email.received',
  created_at: new Date().toISOString(),
  data: {
    email_id: emailId,
    created_at: new Date().toISOString(),
    from: 'ann@sender.example',
    to: [`reverser@${mailDomain}`],
    bcc: [],
    cc: [],
    received_for: [`reverser@${mailDomain}`],
    message_id: '',
    subject: 'hi',
    attachments: [],
  },
});
const svixId = `msg_${emailId}`;
const secret = await signingSecret();
for (let copy = 0; copy < Number(copies); copy += 1) await postUntilTaken();
const accepted = await standIn.waitForAccepted(before + 1, REPLY_DEADLINE_MS);
const replies = accepted.slice(before).map(({ payload }) => payload.text?.trim());
if (replies.length !== 1 || !replies[0]?.startsWith(expected))
  throw new Error(`expected one reply "${expected}", got ${JSON.stringify(replies)}`);
process.stdout.write(`"${text}" was answered with "${expected}"\n`);

/** The one that setup.sh got for this endpoint: there is exactly one webhook to it. */
async function signingSecret(): Promise<string> {
  const resend = new Resend(apiKey, { baseUrl: standInUrl });
  const webhooks = (await resend.webhooks.list({ limit: 100 })).data?.data ?? [];
  const ours = webhooks.filter((webhook) => webhook.endpoint === endpoint);
  if (ours.length !== 1) throw new Error(`${ours.length} webhooks post to ${endpoint}`);
  return (await resend.webhooks.get(ours[0]?.id ?? '')).data?.signing_secret ?? '';
}

/** As Svix does, only quicker: again until a 2xx. */
async function postUntilTaken(): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const status = await post().catch((error: unknown) => String(error));
    if (status === 200 || status === 202 || status === 204) return;
    if (attempt === MAX_ATTEMPTS) throw new Error(`the webhook was not taken: ${status}`);
    await pause(ATTEMPT_PAUSE_MS);
  }
}

async function post(): Promise<number | undefined> {
  const url = new URL(endpoint);
  const at = new Date();
  const outgoing = request({
    // The name is nobody's: it stands in the certificate, and the machine is this one.
    host: '127.0.0.1',
    port: url.port === '' ? 443 : Number(url.port),
    servername: url.hostname,
    path: url.pathname,
    method: 'POST',
    ca: readFileSync(caFile),
    headers: {
      host: url.host,
      'content-type': 'application/json',
      'svix-id': svixId,
      'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
      'svix-signature': new Webhook(secret).sign(svixId, at, body),
    },
  });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  response.resume();
  return response.statusCode;
}
