/**
 * BullMQ as its guide has it: a queue and a worker in one program, jobs retried with exponential backoff.
 * The job's id is the email's, so that a second webhook adds nothing as long as the finished job is kept.
 */
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { fetchText, reverse, sendReply, serveWebhook } from '../mail-work.mjs';

const connect = () =>
  new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null });
/** Its guide: 100 to 300 for jobs that mostly wait. */
const CONCURRENCY = 100;
const KEPT_SECONDS = 72 * 3600;

const queue = new Queue('mail', { connection: connect() });
const options = {
  attempts: 20,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: { age: KEPT_SECONDS },
};
const worker = new Worker(
  'mail',
  async ({ data }) => sendReply(data, reverse(await fetchText(data.email_id))),
  {
    connection: connect(),
    concurrency: CONCURRENCY,
  },
);
worker.on('error', (error) => process.stderr.write(`${error.stack}\n`));
await worker.waitUntilReady();
serveWebhook((mail) => queue.add('mail', mail, { ...options, jobId: mail.email_id }));
