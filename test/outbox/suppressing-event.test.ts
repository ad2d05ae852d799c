/** Which delivery events stop mail to an address, and to which one. */
import { expect, it } from 'vitest';
import { suppressionBy } from '../../src/outbox/suppressing-event.ts';
import type { DeliveryRecord } from '../../src/streams/records.ts';

const bounce = (type?: unknown, rest: Record<string, unknown> = {}) => ({ bounce: { type, ...rest } });

function delivery(fields: Partial<DeliveryRecord>): DeliveryRecord {
  return {
    kind: 'delivery',
    version: 1,
    event: 'bounced',
    providerId: 'p1',
    messageId: null,
    to: ['ann@sender.example'],
    tags: { millrace_key: 'k' },
    at: '2026-11-22T10:00:00Z',
    details: bounce('Permanent'),
    ...fields,
  };
}

it.each<[string, Partial<DeliveryRecord>, string | null]>([
  ['a permanent bounce', {}, 'Permanent'],
  [
    'one of a sub-type that nobody knows',
    { details: bounce('Permanent', { subType: 'Moved', message: 'Gone to Mars.' }) },
    'Permanent, Moved, Gone to Mars.',
  ],
  [
    'one whose other details are not as they should be',
    { details: bounce('Permanent', { message: 7 }) },
    'Permanent',
  ],
  ['a complaint', { event: 'complained', details: {} }, null],
  ['a complaint whose details are none', { event: 'complained', details: 'x' }, null],
  [
    'what the provider suppressed',
    {
      event: 'suppressed',
      details: { suppressed: { type: 'OnAccountSuppressionList', message: 'on the list' } },
    },
    'OnAccountSuppressionList, on the list',
  ],
])('%s stops mail to its recipient', (_, fields, message) => {
  const { event: reason = 'bounced' } = fields;
  expect(suppressionBy(delivery(fields))).toEqual({ address: 'ann@sender.example', reason, message });
});

it.each<[string, Partial<DeliveryRecord>]>([
  ['a transient bounce', { details: bounce('Transient', { subType: 'MailboxFull' }) }],
  ['an undetermined one', { details: bounce('Undetermined') }],
  ['one that does not say what it is', { details: {} }],
  ['one of a type that is no text', { details: bounce({ type: 'Permanent' }) }],
  ...['sent', 'delivered', 'delivery_delayed', 'opened', 'clicked', 'failed', 'scheduled', 'constructor'].map(
    (event): [string, Partial<DeliveryRecord>] => [`the event ${event}`, { event }],
  ),
])('%s does not', (_, fields) => {
  expect(suppressionBy(delivery(fields))).toBeNull();
});

it.each<[string, Partial<DeliveryRecord>]>([
  ['several in To', { to: ['ann@sender.example', 'bea@sender.example'] }],
  ['an address and what is none', { to: ['ann@sender.example', 'undisclosed-recipients:;'] }],
  ['nobody', { to: [] }],
  ['a Cc that the event tells', { details: { ...bounce('Permanent'), cc: ['bea@sender.example'] } }],
  ['a Bcc that the event tells', { details: { ...bounce('Permanent'), bcc: ['bea@sender.example'] } }],
  ['several by our tag, of whom the event tells one', { tags: { millrace_recipients: '2' } }],
])('of mail to %s nobody knows whom it is about', (_, fields) => {
  expect(suppressionBy(delivery(fields))).toBeNull();
});

it.each([
  ['a name', ['Ann <Ann@Sender.Example>'], 'ann@sender.example'],
  ['an international domain', ['ann@MÜNCHEN.example'], 'ann@xn--mnchen-3ya.example'],
  ['one twice', ['ann@sender.example', 'ANN@sender.example'], 'ann@sender.example'],
  ['a list of nothing else', { cc: [], bcc: null }, 'ann@sender.example'],
])('the address is compared as everywhere, with %s', (_, written, address) => {
  const fields = Array.isArray(written)
    ? { to: written }
    : { details: { ...bounce('Permanent'), ...written } };
  expect(suppressionBy(delivery(fields))?.address).toBe(address);
});
