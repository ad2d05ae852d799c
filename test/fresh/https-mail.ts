/**
 * Mail to a server that setup.sh made, as the world sends it: the email stands at the stand-in for Resend, its
 * signed webhook goes to the server's HTTPS, checked against Caddy's own authority. Used in that machine's network.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { Resend } from 'resend';
import { Webhook } from 'svix';
import { connectResendStandIn } from '../resend-stand-in/client.ts';

interface Message {
  text: string;
  from: string;
  messageId: string;
}

/** A webhook that can be posted as often as one likes. */
interface SignedWebhook {
  emailId: string;
  body: string;
}

const MAX_ATTEMPTS = 60;
const ATTEMPT_PAUSE_MS = 500;
const mailDomain = process.env['MAIL_DOMAIN'] ?? 'agents.example.com';
const apiKey = process.env['RESEND_API_KEY'] ?? 're_test';

/** @param caFile the root that Caddy signs with */
export async function connectHttpsMail(standInUrl: string, publicUrl: string, caFile: string) {
  const standIn = connectResendStandIn(standInUrl);
  const endpoint = new URL(`${publicUrl}/webhooks/resend`);
  const ca = readFileSync(caFile);
  const signer = new Webhook(await signingSecret(standInUrl, endpoint.href));

  async function post({ emailId, body }: SignedWebhook): Promise<number | undefined> {
    const at = new Date();
    const outgoing = request({
      // The name is nobody's: it stands in the certificate, and the machine is this one.
      host: '127.0.0.1',
      port: endpoint.port === '' ? 443 : Number(endpoint.port),
      servername: endpoint.hostname,
      path: endpoint.pathname,
      method: 'POST',
      ca,
      agent: false,
      headers: {
        host: endpoint.host,
        'content-type': 'application/json',
        'svix-id': `msg_${emailId}`,
        'svix-timestamp': String(Math.floor(at.getTime() / 1000)),
        'svix-signature': signer.sign(`msg_${emailId}`, at, body),
      },
    });
    outgoing.end(body);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    response.resume();
    return response.statusCode;
  }

  return {
    standIn,
    /** The email, readable at the stand-in, and the webhook that tells of it. */
    async receive({ text, from, messageId }: Message): Promise<SignedWebhook> {
      const to = `reverser@${mailDomain}`;
      const headers = [`From: Ann <${from}>`, `To: ${to}`, 'Subject: hi', `Message-ID: ${messageId}`];
      const raw = [...headers, `Return-Path: <${from}>`, '', text, ''].join('\r\n');
      const { emailId } = await standIn.deliver(raw, { silent: true });
      const created_at = new Date().toISOString();
      const addresses = { from, to: [to], bcc: [], cc: [], received_for: [to] };
      const data = {
        email_id: emailId,
        created_at,
        ...addresses,
        message_id: '',
        subject: 'hi',
        attachments: [],
      };
      return { emailId, body: JSON.stringify({ type: 'email.received', created_at, data }) };
    },
    /** As Svix does, only quicker: again until a 2xx. Returns what the attempts before that one came to. */
    async postUntilTaken(webhook: SignedWebhook): Promise<string[]> {
      for (const refused: string[] = []; ;) {
        const status = await post(webhook).catch((error: unknown) => String(error));
        if (typeof status === 'number' && status >= 200 && status < 300) return refused;
        refused.push(String(status));
        if (refused.length === MAX_ATTEMPTS) throw new Error(`the webhook was not taken: ${status}`);
        await pause(ATTEMPT_PAUSE_MS);
      }
    },
  };
}

/** The one that setup.sh got for this endpoint: there is exactly one webhook to it. */
async function signingSecret(standInUrl: string, endpoint: string): Promise<string> {
  const resend = new Resend(apiKey, { baseUrl: standInUrl });
  const webhooks = (await resend.webhooks.list({ limit: 100 })).data?.data ?? [];
  const ours = webhooks.filter((webhook) => webhook.endpoint === endpoint);
  if (ours.length !== 1) throw new Error(`${ours.length} webhooks post to ${endpoint}`);
  return (await resend.webhooks.get(ours[0]?.id ?? '')).data?.signing_secret ?? '';
}
