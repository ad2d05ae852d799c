/**
 * BullMQ as its guide has it: a queue and a worker in one program, jobs retried with exponential backoff.
 * The job's id is the email's, so that a second webhook adds nothing as long as the finished job is kept.
 * Of a job of several steps it keeps what each found in the job's data (its pattern "process step jobs").
 */
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { job as mailJob, serveWebhook } from '../mail-work.mjs';

const connect = () =>
  new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null });
/** Its guide: 100 to 300 for jobs that mostly wait. */
const CONCURRENCY = 100;
const KEPT_SECONDS = 72 * 3600;
/** The text can be fetched again, and what the last step gives is the job's own result. */
const NOT_KEPT = ['text', 'send'];

const queue = new Queue('mail', { connection: connect() });
const options = {
  attempts: 20,
  backoff: { type: 'exponential', delay: 1000 },
  removeOnComplete: { age: KEPT_SECONDS },
};

async function work(job) {
  return mailJob(job.data.mail, async (name, find) => {
    if (NOT_KEPT.includes(name)) return find();
    if (!(name in job.data)) await job.updateData({ ...job.data, [name]: await find() });
    return job.data[name];
  });
}

const worker = new Worker('mail', work, { connection: connect(), concurrency: CONCURRENCY });
worker.on('error', (error) => process.stderr.write(`${error.stack}\n`));
worker.on('failed', (_, error) => process.stderr.write(`${error.stack}\n`));
await worker.waitUntilReady();
serveWebhook((mail) => queue.add('mail', { mail }, { ...options, jobId: mail.email_id }));
