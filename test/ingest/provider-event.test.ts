/** An event of Resend in which a field is not as documented: what only goes with it is no reason to lose it. */
import { describe, expect, it } from 'vitest';
import { providerEvent, recipientsOf } from '../../src/ingest/provider-event.ts';
import type { ProviderEvent } from '../../src/ingest/provider-event.ts';

const EMAIL_ID = '3f5a1c9e-7b0d-4c55-9f0a-2f6f3f7f1a10';
const TIME = '2026-11-22T10:00:00.000Z';
const to = ['ann@ours.example'];
const data = { email_id: EMAIL_ID, created_at: TIME, from: 'bob@sender.example', to };
const event = {
  type: 'email.received',
  created_at: TIME,
  data: { ...data, subject: 'Hi', message_id: '<a@b>' },
};
const odd = [null, 5, {}, undefined];

/** With a field of the event, or of its data (`data.…`), as given; undefined is left out. */
function eventWith(type: string, path: string, value: unknown): ProviderEvent {
  const name = path.replace('data.', '');
  const changed = name === path ? { [name]: value } : { data: { ...event.data, [name]: value } };
  const body = Buffer.from(JSON.stringify({ ...event, ...changed, type }));
  return providerEvent({ seqNum: 0, timestampMs: 0, headers: [], body });
}

const casesOf = (paths: string[]) => paths.flatMap((path) => odd.map((value) => [path, value] as const));

describe('a mail', () => {
  it.each(
    casesOf(['created_at', 'data.created_at', 'data.from', 'data.subject', 'data.message_id', 'data.cc']),
  )('whose %s is %j is one', (path, value) => {
    const found = eventWith('email.received', path, value);
    if (found.kind !== 'arrival') throw new Error(found.kind);
    expect(recipientsOf(found.arrival, ['ours.example'])).toMatchObject([{ inbox: 'ann' }]);
  });

  it.each(casesOf(['data.to', 'data.received_for', 'data.bcc']))('whose %s is %j is one', (path, value) => {
    expect(eventWith('email.received', path, value).kind).toBe('arrival');
  });

  it.each([
    ['data.to', 'cal@ours.example', 'cal'],
    ['data.to', ['cal@ours.example', 5, null], 'cal'],
    ['data.cc', '', 'ann'],
    ['data.received_for', 'cal@ours.example', 'cal'],
  ])('whose %s is %j goes to whom it names', (path, value, inbox) => {
    const found = eventWith('email.received', path, value);
    if (found.kind !== 'arrival') throw new Error(found.kind);
    expect(recipientsOf(found.arrival, ['ours.example'])).toMatchObject([{ inbox }]);
  });
});

// It vanished as an unknown event, and mail went on to an address that had bounced.
describe('a bounce', () => {
  it.each(casesOf(['created_at', 'data.created_at', 'data.message_id', 'data.tags']))(
    'whose %s is %j is one, of the address that it names',
    (path, value) => {
      const found = eventWith('email.bounced', path, value);
      expect(found).toMatchObject({ kind: 'delivery', delivery: { data: { email_id: EMAIL_ID, to } } });
    },
  );

  it('of an address that stands by itself is of that one', () => {
    const found = eventWith('email.bounced', 'data.to', 'ann@x.example');
    expect(found).toMatchObject({ kind: 'delivery', delivery: { data: { to: ['ann@x.example'] } } });
  });
});
