/**
 * The far end of the benchmark as a process: the stand-in for Resend without a rate limit. It says who was
 * answered and when, in batches. A reply that is not the mail's text, reversed, answers nobody.
 */
import type { LoadMail, Replies } from './load.ts';
import { BENCH_API_KEY, LOAD_TEXT, machineMs } from './load.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';

const REPORT_MS = 2;

const REVERSED = Array.from(LOAD_TEXT.trimEnd().replaceAll('\r', '')).toReversed().join('');

const replies: [string, number][] = [];
let reporting = false;

const standIn = await startResendStandIn({ apiKey: BENCH_API_KEY }, (mail) => {
  if (String(mail.payload.text).replaceAll('\r', '') !== REVERSED) return;
  replies.push([String([mail.payload.to].flat()[0]), machineMs()]);
  if (reporting) return;
  reporting = true;
  setTimeout(report, REPORT_MS);
});

function report(): void {
  reporting = false;
  const message: Replies = { kind: 'replies', replies: replies.splice(0) };
  process.send?.(message);
}

async function take(message: { register?: readonly LoadMail[] }): Promise<unknown> {
  for (const { raw, emailId } of message.register ?? [])
    await standIn.deliver(raw, { emailId, silent: true });
  const { user, system } = process.cpuUsage();
  return { kind: 'done', cpuMs: (user + system) / 1000 };
}

process.on('message', (message: object) => void take(message).then((answer) => process.send?.(answer)));
process.on('disconnect', () => process.exit());
process.send?.({ kind: 'ready', url: standIn.url });
