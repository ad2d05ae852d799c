/**
 * The same stand-in, driven from another process over its control API. `connectResendStandIn` talks to one
 * that runs; `spawnResendStandIn` starts one as a process of its own, which survives whatever the test
 * kills.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ResendStandIn, ResendStandInOptions } from './contract.ts';
import { CONTROL_METHODS } from './control.ts';

type Method = (typeof CONTROL_METHODS)[number];

export function connectResendStandIn(url: string): ResendStandIn {
  const call =
    (method: Method) =>
    async (...args: unknown[]) => {
      // JSON has no `undefined`: one at the end is left out, so that the other side's default applies.
      while (args.length > 0 && args.at(-1) === undefined) args.pop();
      const response = await fetch(`${url}/_control/${method}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(args.map(encodeBytes)),
      });
      const { result, error } = (await response.json()) as { result?: unknown; error?: string };
      if (error !== undefined) throw new Error(`stand-in: ${method}: ${error}`);
      return result ?? undefined;
    };
  const methods = Object.fromEntries(CONTROL_METHODS.map((method) => [method, call(method)]));
  return { url, ...methods } as unknown as ResendStandIn;
}

/** Starts `main.ts` in a process of its own; its `stop` ends that process. */
export async function spawnResendStandIn(options: ResendStandInOptions): Promise<ResendStandIn> {
  const script = fileURLToPath(new URL('main.ts', import.meta.url));
  const child = spawn(process.execPath, [script, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  const [url] = (await Promise.race([once(lines, 'line'), once(child, 'exit')])) as [string | number | null];
  if (typeof url !== 'string') throw new Error('the stand-in for Resend did not start');
  const remote = connectResendStandIn(url);
  return {
    ...remote,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}

function encodeBytes(value: unknown): unknown {
  return value instanceof Uint8Array ? { base64: Buffer.from(value).toString('base64') } : value;
}
