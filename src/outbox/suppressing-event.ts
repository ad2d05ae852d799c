/**
 * Which delivery events stop mail to an address: a permanent bounce, a complaint, and that the provider itself
 * suppressed it. A transient or undetermined bounce does not; sub-types of bounces are open, and do not matter.
 *
 * Of a mail to several the provider does not say whom an event is about: it counts only where there was one
 * recipient. The event's `to` alone does not tell, because there may have been Cc and Bcc: the runner tags a request
 * to several with their number.
 */
import { z } from 'zod';
import { normaliseAddress } from '../mail/address.ts';
import { namedRecipient } from '../mail/recipient.ts';
import { RECIPIENTS_TAG } from '../mail/send.ts';
import type { DeliveryRecord } from '../streams/records.ts';
import type { SuppressionRecord } from '../streams/suppression-records.ts';

const MAX_MESSAGE_CHARS = 200;
/** Of a list that a webhook brought. */
const MAX_RECIPIENTS = 50;

const text = z.string().optional().catch(undefined);
const aboutSchema = z.object({ type: text, subType: text, message: text }).catch({});
const detailsSchema = z
  .object({
    bounce: aboutSchema.optional(),
    suppressed: aboutSchema.optional(),
    cc: z.array(z.unknown()).nullish().catch(null),
    bcc: z.array(z.unknown()).nullish().catch(null),
  })
  .catch({});

/** Whom this event says is not to be written to any more, and why; null for nobody. */
export function suppressionBy(
  delivery: DeliveryRecord,
): Pick<SuppressionRecord, 'address' | 'reason' | 'message'> | null {
  const { bounce, suppressed, cc, bcc } = detailsSchema.parse(delivery.details);
  const reason = reasonOf(delivery.event, bounce?.type);
  if (reason === null) return null;
  const isToSeveral = delivery.tags[RECIPIENTS_TAG] !== undefined || [cc, bcc].some((list) => list?.length);
  const address = isToSeveral ? null : onlyAddress(delivery.to);
  if (address === null) return null;
  const { type, subType, message } = (reason === 'bounced' ? bounce : suppressed) ?? {};
  const said = [type, subType, message].filter((part) => part !== undefined).join(', ');
  return { address, reason, message: said.slice(0, MAX_MESSAGE_CHARS).toWellFormed() || null };
}

function reasonOf(event: string, bounceType = ''): SuppressionRecord['reason'] | null {
  if (event === 'bounced') return bounceType.toLowerCase() === 'permanent' ? event : null;
  return event === 'complained' || event === 'suppressed' ? event : null;
}

/** Normalised; null where there are several, or what is no address. */
function onlyAddress(to: readonly string[]): string | null {
  const addresses = to.slice(0, MAX_RECIPIENTS).map((entry) => normaliseAddress(namedRecipient(entry) ?? ''));
  const [address = null, ...others] = new Set(addresses);
  return others.length === 0 ? address : null;
}
