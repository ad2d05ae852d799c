/**
 * What a webhook event on `events` says, as far as receive wants to know: parsed once for each record, though three
 * ask for it. Also by what receive orders and shares: only mail of one person about one thing to one inbox is handled
 * in order, since of a conversation's ids an event says nothing; and inboxes take turns, so that a burst for one of
 * them does not hold up the others.
 */
import { z } from 'zod';
import { routeRecipients } from '../mail/address.ts';
import type { Recipient } from '../mail/address.ts';
import { addressesOf } from '../mail/recipient.ts';
import { correspondenceKey } from '../mail/thread.ts';
import { MillraceError } from '../platform/errors.ts';
import { onceForEach } from '../platform/once-for-each.ts';
import type { StreamRecord } from '../streams/stream-store.ts';

/** Of a field that names one author. */
const MAX_FROM_CHARS = 1000;

/** A list, or one address by itself; what is neither names nobody. */
const addressesSchema = z
  .union([z.array(z.unknown()), z.string().transform((one) => (one === '' ? [] : [one]))])
  .catch([])
  .transform((list: readonly unknown[]) => list.filter((address) => typeof address === 'string'));
/** What only orders mail, or goes with it, must not be a reason to refuse it. */
const hintSchema = z.string().catch('');
const optionalSchema = z.string().nullish().catch(null);

const arrivalSchema = z.object({
  type: z.literal('email.received'),
  created_at: optionalSchema,
  data: z.object({
    created_at: optionalSchema,
    email_id: z.guid(),
    from: hintSchema,
    subject: hintSchema,
    to: addressesSchema,
    cc: addressesSchema,
    bcc: addressesSchema,
    received_for: addressesSchema,
  }),
});
export type Arrival = z.infer<typeof arrivalSchema>;

const deliverySchema = z.object({
  type: z.string().startsWith('email.'),
  created_at: optionalSchema,
  data: z.looseObject({
    email_id: z.string().max(256),
    message_id: optionalSchema,
    to: addressesSchema,
    tags: z.unknown().optional(),
  }),
});
export type Delivery = z.infer<typeof deliverySchema>;

/** Made once: a schema costs thirty times what it takes to check an event with it. */
const typedSchema = z.looseObject({ type: z.string() });

export type ProviderEvent =
  | { readonly kind: 'arrival'; readonly arrival: Arrival }
  | { readonly kind: 'delivery'; readonly delivery: Delivery }
  | { readonly kind: 'unknown'; readonly type: string };

export interface EventOrder {
  /** @throws MillraceError `receive.malformed_event` (permanent) */
  laneOf(record: StreamRecord): string | null;
  /** Of mail for several inboxes that of the first. Throws the same. */
  fairnessKeyOf(record: StreamRecord): string;
  /** Looks which inboxes are served; in between the keys of names stay as they are. */
  keysMayChange(): void;
}

/** @throws MillraceError `receive.malformed_event` (permanent) */
export const providerEvent = onceForEach((record: StreamRecord): ProviderEvent => {
  const body = typedBody(record);
  const arrival = arrivalSchema.safeParse(body);
  if (arrival.success) return { kind: 'arrival', arrival: arrival.data };
  if (body.type === 'email.received') {
    throw new MillraceError(
      'permanent',
      'receive.malformed_event',
      `email.received of an unknown shape: ${z.prettifyError(arrival.error)}`,
    );
  }
  const delivery = deliverySchema.safeParse(body);
  if (delivery.success) return { kind: 'delivery', delivery: delivery.data };
  return { kind: 'unknown', type: body.type };
});

function typedBody(record: StreamRecord): { type: string } {
  try {
    return typedSchema.parse(JSON.parse(Buffer.from(record.body).toString('utf8')));
  } catch (cause) {
    throw new MillraceError(
      'permanent',
      'receive.malformed_event',
      `event ${record.seqNum} is not an object with a type`,
      { cause },
    );
  }
}

/** The inboxes of ours that a mail is for, in the order in which the event names them. */
export function recipientsOf({ data }: Arrival, domains: readonly string[]): Recipient[] {
  return routeRecipients(
    { receivedFor: data.received_for, to: data.to, cc: data.cc, bcc: data.bcc },
    domains,
  );
}

/**
 * One person's mail about one thing to one inbox arrives there in order, and nothing else waits for another; inboxes take
 * turns. All names that no tool serves together are one of them: whoever writes to a thousand names that he made up
 * must not get a thousand turns.
 * @param served the inboxes that have a tool now; undefined while nobody knows
 */
export function arrivalOrder(
  domains: readonly string[],
  served: () => readonly string[] | undefined = () => undefined,
): EventOrder {
  const inboxOf = (arrival: Arrival): string => recipientsOf(arrival, domains)[0]?.inbox ?? '';
  let known = served();
  return {
    laneOf(record) {
      const event = providerEvent(record);
      if (event.kind !== 'arrival') return null;
      const { from, subject } = event.arrival.data;
      const author = addressesOf(from.slice(0, MAX_FROM_CHARS))[0] ?? from;
      return correspondenceKey(author, subject, inboxOf(event.arrival));
    },
    fairnessKeyOf(record) {
      const event = providerEvent(record);
      // What becomes of sent mail takes turns as one inbox more.
      if (event.kind !== 'arrival') return 'other';
      const inbox = inboxOf(event.arrival);
      return (known?.includes(inbox) ?? true) ? `inbox/${inbox}` : 'unserved';
    },
    keysMayChange: () => void (known = served()),
  };
}
