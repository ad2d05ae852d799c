/**
 * One mail through a server that setup.sh made, as the world sees it. Run in that machine's network:
 *   mail-through-caddy.ts STAND-IN-URL PUBLIC-URL CA-FILE TEXT EXPECTED-REPLY [COPIES]
 * It ends with a failure unless exactly one reply comes, with the text that is expected. The last word that it
 * prints is the email's id.
 */
import { connectHttpsMail } from './https-mail.ts';

const [standInUrl = '', publicUrl = '', caFile = '', text = '', expected = '', copies = '1'] =
  process.argv.slice(2);
const REPLY_DEADLINE_MS = 60_000;

const mail = await connectHttpsMail(standInUrl, publicUrl, caFile);
const before = (await mail.standIn.accepted()).length;
const messageId = `<${Date.now()}@sender.example>`;
const webhook = await mail.receive({ text, from: 'ann@sender.example', messageId });
for (let copy = 0; copy < Number(copies); copy += 1) await mail.postUntilTaken(webhook);
const accepted = await mail.standIn.waitForAccepted(before + 1, REPLY_DEADLINE_MS);
const replies = accepted.slice(before).map(({ payload }) => payload.text?.trim());
if (replies.length !== 1 || !replies[0]?.startsWith(expected))
  throw new Error(`expected one reply "${expected}", got ${JSON.stringify(replies)}`);
process.stdout.write(`"${text}" was answered with "${expected}": ${webhook.emailId}\n`);
