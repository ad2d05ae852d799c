/**
 * What every peer does with a mail, so that they differ in their engine alone: verify the webhook as Svix does,
 * then the job. `job(mail, step)` runs each of its steps as `step(name, work)`, which is the engine's: it keeps what
 * `work` finds, and gives it again to a later attempt.
 *
 * There are two jobs, and PEER_JOB says which: `whole` is all the work that Millrace does (`whole-job.ts`); `text` is
 * the least that answers: one call gives the text, which is reversed here, and the reply is sent.
 */
import { createServer } from 'node:http';
import { Webhook } from 'svix';

const { RESEND_BASE_URL, RESEND_API_KEY, RESEND_WEBHOOK_SECRET, MAIL_DOMAIN, TOOLS_PATH, PORT } = process.env;
const verifier = new Webhook(RESEND_WEBHOOK_SECRET);
const authorization = { authorization: `Bearer ${RESEND_API_KEY}` };

export const job = process.env.PEER_JOB === 'whole' ? await wholeJob() : textJob;

async function wholeJob() {
  const { createWholeJob } = await import('../whole-job.ts');
  return createWholeJob({
    resendUrl: RESEND_BASE_URL,
    apiKey: RESEND_API_KEY,
    toolsPath: TOOLS_PATH,
    domain: MAIL_DOMAIN,
  });
}

async function textJob(mail, step) {
  const text = await step('text', () => fetchText(mail.email_id));
  return step('send', () => sendReply(mail, reverse(text)));
}

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

async function fetchText(emailId) {
  const response = await fetch(`${RESEND_BASE_URL}/emails/receiving/${emailId}`, { headers: authorization });
  if (!response.ok) throw new Error(`the API answered ${response.status}`);
  return (await response.json()).text;
}

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

function reverse(text) {
  return Array.from(graphemes.segment(text.trimEnd()), ({ segment }) => segment)
    .toReversed()
    .join('');
}

async function sendReply(mail, text) {
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
