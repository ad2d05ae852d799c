/**
 * The mail provider of the simulation, which behaves as Resend: an idempotency key has no second effect for
 * 24 h by the true time, after that it is forgotten; answers get lost; some recipients are refused for good.
 */
import { MillraceError } from '../../src/platform/errors.ts';
import type { OutboundProvider } from '../../src/outbox/outbox.ts';
import type { Network } from './simulated-store.ts';
import type { World } from './world.ts';

export const REJECTED_RECIPIENT = 'rejected@example.com';
const KEY_LIFETIME_MS = 24 * 3_600_000;
/** As `find-sent.ts` allows for clocks that differ. */
const CLOCK_MARGIN_MS = 4 * 3_600_000;

interface Accepted {
  readonly providerId: string;
  readonly atMs: number;
  readonly tag: string;
}

export interface Provider {
  /** How the process behind this network reaches it. */
  outbound(network: Network): OutboundProvider;
}

/** `onAccepted` sees every mail that really leaves, by the tag that names its cause. */
export function createProvider(world: World, onAccepted: (tag: string) => void): Provider {
  const byKey = new Map<string, Accepted>();
  const all: Accepted[] = [];

  function accept(key: string, tag: string): Accepted {
    const known = byKey.get(key);
    if (known && world.nowMs() - known.atMs < KEY_LIFETIME_MS) return known;
    const accepted = { providerId: `sent-${all.length}`, atMs: world.nowMs(), tag };
    byKey.set(key, accepted);
    all.push(accepted);
    world.trace(`provider accepts ${tag} under ${key}`);
    onAccepted(tag);
    return accepted;
  }

  return {
    outbound: (network) => ({
      send: (request, idempotencyKey, signal) =>
        network.request(
          'send',
          () => {
            if (request.to === REJECTED_RECIPIENT)
              throw new MillraceError('permanent', 'resend.rejected', 'simulated');
            if (world.chance(0.02))
              throw new MillraceError('transient', 'resend.quota_exceeded', 'simulated', {
                retryAfterMs: 3_600_000,
              });
            return accept(idempotencyKey, tagOf(request));
          },
          signal,
        ),
      findSent: (request, sinceMs, signal) =>
        network.request(
          'fetch',
          () =>
            all.find(({ tag, atMs }) => tag === tagOf(request) && atMs >= sinceMs - CLOCK_MARGIN_MS) ?? null,
          signal,
        ),
    }),
  };
}

function tagOf(request: { tags?: readonly { value: string }[] | undefined }): string {
  return request.tags?.[0]?.value ?? '';
}
