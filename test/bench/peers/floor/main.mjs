/**
 * The floor: the least that the same job takes in one Node process with the same calls to the outside as
 * Millrace: HTTP, the signature, a durable row before the answer (commits shared by what came meanwhile),
 * the link, the download, the reversed text, the send, a durable row after. No sandbox, no MIME, no order,
 * no recovery: not a program to use, but what nothing in JavaScript undercuts by much.
 */
import { DatabaseSync } from 'node:sqlite';
import { join } from 'node:path';
import { fetchText, reverse, sendReply, serveWebhook } from '../mail-work.mjs';

process.env.PEER_CONTENT = 'raw';
const database = new DatabaseSync(join(process.env.DATA_DIR, 'floor.db'));
database.exec(
  'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE log (id TEXT, kind TEXT, body TEXT)',
);
const insert = database.prepare('INSERT INTO log VALUES (?, ?, ?)');

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
  const providerId = await sendReply(mail, reverse(await fetchText(mail.email_id)));
  await durable(mail.email_id, 'sent', providerId);
}

serveWebhook(async (mail) => {
  await durable(mail.email_id, 'event', JSON.stringify(mail));
  void work(mail);
});
