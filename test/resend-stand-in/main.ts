/**
 * The stand-in for Resend as a process: `node test/resend-stand-in/main.ts ['{"apiKey":"re_test",…}']`.
 * It prints its URL on one line and runs until it is told to stop.
 */
import type { ResendStandInOptions } from './contract.ts';
import { startResendStandIn } from './resend-stand-in.ts';

const options = JSON.parse(process.argv[2] ?? '{"apiKey":"re_test"}') as ResendStandInOptions;
const standIn = await startResendStandIn(options);
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void standIn.stop());
process.stdout.write(`${standIn.url}\n`);
