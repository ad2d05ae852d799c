/**
 * Mail after mail through a server that setup.sh made, until SIGTERM, while something happens to it. Run in that
 * machine's network:
 *   load-through-caddy.ts STAND-IN-URL PUBLIC-URL CA-FILE
 * Then it waits for the answers, and fails if a webhook was refused for good, or a mail that was taken has no
 * answer, more than one, or another mail's.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { connectHttpsMail } from './https-mail.ts';

const [standInUrl = '', publicUrl = '', caFile = ''] = process.argv.slice(2);
const PAUSE_MS = 250;
const MAX_MAILS = 4_000;
const ANSWER_DEADLINE_MS = 120_000;
const SHOWN = 5;

const mail = await connectHttpsMail(standInUrl, publicUrl, caFile);
const before = (await mail.standIn.accepted()).length;
const run = Date.now();
const sending: Promise<string[]>[] = [];
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());

while (!stop.signal.aborted && sending.length < MAX_MAILS) {
  sending.push(send(sending.length));
  // Awaited below; what fails until then is no failure of the process.
  sending.at(-1)?.catch(() => {});
  await pause(PAUSE_MS, undefined, { signal: stop.signal }).catch(() => {});
}
const refused = (await Promise.all(sending)).flat();
// The last of them came after all that happened; whatever answers twice has had its time by then.
await send(sending.length);
const accepted = await mail.standIn.waitForAccepted(before + sending.length + 1, ANSWER_DEADLINE_MS);
const answers = new Map<string, number>();
for (const { payload } of accepted.slice(before)) {
  const text = payload.text?.trim().split('\n')[0] ?? '';
  answers.set(text, (answers.get(text) ?? 0) + 1);
}
const faults = Array.from({ length: sending.length + 1 }, (_, number) => reversed(textOf(number)))
  .map((text) => [text, answers.get(text) ?? 0] as const)
  .filter(([, times]) => times !== 1);
if (faults.length > 0 || answers.size !== sending.length + 1)
  throw new Error(`answers and how often: ${JSON.stringify(faults.slice(0, SHOWN))}, ${answers.size} in all`);
const again =
  refused.length === 0
    ? 'at the first attempt'
    : `in the end, ${refused.length} attempts refused (${[...new Set(refused)].join(', ')})`;
process.stdout.write(`${sending.length + 1} mails, each webhook taken ${again}, each mail answered once\n`);

async function send(number: number): Promise<string[]> {
  const messageId = `<${run}.${number}@sender.example>`;
  const from = `ann${number}@sender.example`;
  return mail.postUntilTaken(await mail.receive({ text: textOf(number), from, messageId }));
}

function textOf(number: number): string {
  return `${run}-${number}`;
}

function reversed(text: string): string {
  return text.split('').toReversed().join('');
}
