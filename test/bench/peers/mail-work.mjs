/**
 * What every peer does with a mail, so that they differ in their engine alone: verify the webhook as Svix
 * does, fetch the text, reverse it, send the reply under an idempotency key.
 *
 * The text comes with one call of the API, where Millrace keeps the raw message (a call and a download) and
 * parses it. With PEER_CONTENT=raw the peers make the download, too, without keeping or parsing it.
 */
import { createServer } from 'node:http';
import { Webhook } from 'svix';

const { RESEND_BASE_URL, RESEND_API_KEY, RESEND_WEBHOOK_SECRET, MAIL_DOMAIN, PORT } = process.env;
const verifier = new Webhook(RESEND_WEBHOOK_SECRET);
const authorization = { authorization: `Bearer ${RESEND_API_KEY}` };

/** Listens for webhooks; `accept` resolves when the event is durable. */
export function serveWebhook(accept) {
  const answer = async (request, body) => {
    try {
      verifier.verify(body, request.headers);
    } catch {
      return 401;
    }
    try {
      await accept(JSON.parse(body).data);
      return 200;
    } catch (error) {
      process.stderr.write(`${error?.stack}\n`);
      return 503;
    }
  };
  const server = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      void answer(request, Buffer.concat(chunks)).then((status) => response.writeHead(status).end());
    });
  });
  server.listen(Number(PORT), '127.0.0.1');
}

export async function fetchText(emailId) {
  const response = await fetch(`${RESEND_BASE_URL}/emails/receiving/${emailId}`, { headers: authorization });
  if (!response.ok) throw new Error(`the API answered ${response.status}`);
  const { text, raw } = await response.json();
  if (process.env.PEER_CONTENT === 'raw') {
    const download = await fetch(raw.download_url);
    await download.arrayBuffer();
  }
  return text;
}

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

export function reverse(text) {
  return Array.from(graphemes.segment(text.trimEnd()), ({ segment }) => segment)
    .toReversed()
    .join('');
}

export async function sendReply(mail, text) {
  const response = await fetch(`${RESEND_BASE_URL}/emails`, {
    method: 'POST',
    headers: {
      ...authorization,
      'content-type': 'application/json',
      'idempotency-key': `reply/${mail.email_id}`,
    },
    body: JSON.stringify({
      from: mail.to[0] ?? `box0@${MAIL_DOMAIN}`,
      to: mail.from,
      subject: `Re: ${mail.subject}`,
      text,
      headers: { 'In-Reply-To': mail.message_id, References: mail.message_id },
    }),
  });
  if (!response.ok) throw new Error(`the API answered ${response.status}`);
  return (await response.json()).id;
}
