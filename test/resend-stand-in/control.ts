/**
 * The control API: one POST route for each method of `ResendStandIn`, `/_control/<method>` with the JSON
 * array of its arguments, answered by `{result}` or 500 with `{error}`. Raw messages travel as
 * `{base64}`. `client.ts` is the other end.
 */
import { Hono } from 'hono';
import type { Env } from './api.ts';
import type { ResendStandIn } from './contract.ts';

export const CONTROL_METHODS = [
  'accepted',
  'waitForAccepted',
  'requests',
  'deliver',
  'redeliver',
  'postEvent',
  'postDeliveryEvent',
  'fault',
  'clearFaults',
  'configure',
  'advanceClock',
  'stop',
] as const satisfies readonly Exclude<keyof ResendStandIn, 'url'>[];

export function createControl(standIn: ResendStandIn): Hono<Env> {
  const control = new Hono<Env>();
  for (const method of CONTROL_METHODS) {
    control.post(`/${method}`, async (c) => {
      const sent: unknown = await c.req.json();
      const args = (Array.isArray(sent) ? sent : []).map(decodeBytes);
      // Ended after the answer has left: `stop` closes every connection.
      if (method === 'stop') {
        c.env.outgoing.once('close', () => void standIn.stop());
        c.header('connection', 'close');
        return c.json({ result: null });
      }
      try {
        const call = standIn[method] as (...parameters: unknown[]) => Promise<unknown>;
        return c.json({ result: (await call(...args)) ?? null });
      } catch (error) {
        return c.json({ error: error instanceof Error ? error.message : String(error) }, 500);
      }
    });
  }
  return control;
}

function decodeBytes(value: unknown): unknown {
  const base64 = (value as { base64?: unknown } | null)?.base64;
  return typeof base64 === 'string' ? new Uint8Array(Buffer.from(base64, 'base64')) : value;
}
