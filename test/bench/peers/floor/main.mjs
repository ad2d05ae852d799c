/**
 * The floor: the least that the job takes in one Node process. A row is durable before the answer and one after each
 * step (commits shared by what came meanwhile), but nothing reads them: no order, no recovery, no retry. Not a program
 * to use, but what nothing in JavaScript undercuts by much.
 */
import { DatabaseSync } from 'node:sqlite';
import { join } from 'node:path';
import { job, serveWebhook } from '../mail-work.mjs';

const database = new DatabaseSync(join(process.env.DATA_DIR, 'floor.db'));
database.exec(
  'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE log (id TEXT, kind TEXT, body TEXT)',
);
const insert = database.prepare('INSERT INTO log VALUES (?, ?, ?)');

/** As many mails at once as the peers work on. */
const CONCURRENCY = 100;

let waiting = [];

/** Rows of one turn of the loop are committed together. */
function durable(...row) {
  return new Promise((resolve) => {
    waiting.push({ row, resolve });
    if (waiting.length === 1) setImmediate(commit);
  });
}

function commit() {
  const batch = waiting;
  waiting = [];
  database.exec('BEGIN');
  for (const { row } of batch) insert.run(...row);
  database.exec('COMMIT');
  for (const { resolve } of batch) resolve();
}

async function work(mail) {
  await job(mail, async (name, find) => {
    const found = await find();
    // The text can be fetched again.
    if (name !== 'text') await durable(mail.email_id, name, JSON.stringify(found));
    return found;
  });
}

const queue = [];
let running = 0;

function workOn() {
  while (running < CONCURRENCY && queue.length > 0) {
    running++;
    void work(queue.shift()).finally(() => {
      running--;
      workOn();
    });
  }
}

serveWebhook(async (mail) => {
  await durable(mail.email_id, 'event', JSON.stringify(mail));
  queue.push(mail);
  workOn();
});
