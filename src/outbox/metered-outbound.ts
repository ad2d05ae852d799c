/**
 * A provider whose sends are counted by how they went: taken, to be tried again (transient), refused for good
 * (permanent), or broken off by our own end.
 */
import { Counter } from 'prom-client';
import type { Registry } from 'prom-client';
import { errorKind } from '../platform/errors.ts';
import type { OutboundProvider } from './outbox.ts';

export function createMeteredOutbound(outbound: OutboundProvider, registry: Registry): OutboundProvider {
  const sends = new Counter({
    name: 'millrace_sends_total',
    help: 'Requests that were handed to the provider, by result.',
    labelNames: ['result'],
    registers: [registry],
  });
  return {
    findSent: (...request) => outbound.findSent(...request),
    async send(request, idempotencyKey, signal) {
      try {
        const sent = await outbound.send(request, idempotencyKey, signal);
        sends.inc({ result: 'sent' });
        return sent;
      } catch (error) {
        sends.inc({ result: signal.aborted ? 'aborted' : errorKind(error) });
        throw error;
      }
    },
  };
}
