/**
 * Restate as its documentation has it: a service whose steps are journalled with `ctx.run`, called one-way
 * through the ingress under an idempotency key. Restate answers when the invocation is durable.
 */
import * as restate from '@restatedev/restate-sdk';
import { job, serveWebhook } from '../mail-work.mjs';

const { INGRESS_PORT, SERVICE_PORT } = process.env;

const replier = restate.service({
  name: 'replier',
  handlers: {
    reply: (ctx, mail) => job(mail, (name, work) => ctx.run(name, work)),
  },
});
await restate.serve({ services: [replier], port: Number(SERVICE_PORT) });

serveWebhook(async (mail) => {
  const response = await fetch(`http://127.0.0.1:${INGRESS_PORT}/replier/reply/send`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': mail.email_id },
    body: JSON.stringify(mail),
  });
  await response.arrayBuffer();
  if (!response.ok) throw new Error(`Restate answered ${response.status}`);
});
