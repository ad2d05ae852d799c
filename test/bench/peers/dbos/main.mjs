/**
 * DBOS as its documentation has it: a workflow whose steps' results are rows, started in the background under the
 * email's id (its guide for webhooks). It answers when PostgreSQL has the workflow.
 */
import { DBOS } from '@dbos-inc/dbos-sdk';
import { job, serveWebhook } from '../mail-work.mjs';

const retried = { retriesAllowed: true, maxAttempts: 20, intervalSeconds: 1, backoffRate: 2 };

const reply = DBOS.registerWorkflow(
  (mail) => job(mail, (name, work) => DBOS.runStep(work, { name, ...retried })),
  { name: 'reply' },
);
DBOS.setConfig({
  name: 'bench',
  applicationVersion: '1',
  systemDatabaseUrl: process.env.DBOS_SYSTEM_DATABASE_URL,
  logLevel: 'warn',
  runAdminServer: false,
});
await DBOS.launch();
serveWebhook((mail) => DBOS.startWorkflow(reply, { workflowID: mail.email_id })(mail));
