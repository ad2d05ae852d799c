/** The events that tell what became of an accepted mail, in the shapes that Resend posts. */
import type { AcceptedMail, DeliveryEvent } from './contract.ts';
import { messageIdOf } from './sending.ts';

const DEFAULT_DETAILS: Partial<Record<DeliveryEvent, Record<string, unknown>>> = {
  bounced: {
    bounce: { type: 'Permanent', subType: 'General', message: 'The recipient does not exist.' },
  },
  failed: { failed: { reason: 'reached_daily_quota' } },
  suppressed: {
    suppressed: { type: 'OnAccountSuppressionList', message: 'The address is on the suppression list.' },
  },
};

/** @param details.details replaces the event's own details (`{bounce: {…}}`, …). */
export function deliveryEvent(
  event: DeliveryEvent,
  mail: AcceptedMail,
  details: { at: string; details: Record<string, unknown> | undefined },
): Record<string, unknown> {
  const { payload } = mail;
  return {
    type: `email.${event}`,
    created_at: details.at,
    data: {
      email_id: mail.id,
      created_at: mail.at,
      message_id: messageIdOf(mail),
      from: payload.from,
      to: [payload.to].flat(),
      subject: payload.subject ?? '',
      tags: Object.fromEntries((payload.tags ?? []).map(({ name, value }) => [name, value])),
      ...(details.details ?? DEFAULT_DETAILS[event]),
    },
  };
}
