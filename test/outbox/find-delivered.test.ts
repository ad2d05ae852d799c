/** Finding on our own streams that a request went out. */
import { describe, expect, it } from 'vitest';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { createFindDelivered } from '../../src/outbox/find-delivered.ts';
import { jsonRecord, streamNames } from '../../src/streams/records.ts';
import type { NewRecord } from '../../src/streams/stream-store.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const signal = new AbortController().signal;

const request = (tags?: Record<string, string>): ProviderRequest => ({
  from: 'reverser@agents.example',
  to: 'ann@sender.example',
  subject: 'Re: Greetings',
  text: 'olleh',
  headers: {},
  ...(tags && { tags: Object.entries(tags).map(([name, value]) => ({ name, value })) }),
});

const delivery = (providerId: string, tags: Record<string, string>): NewRecord =>
  jsonRecord({
    kind: 'delivery',
    version: 1,
    event: 'sent',
    providerId,
    messageId: null,
    to: ['ann@sender.example'],
    tags,
    at: '2026-11-22T00:00:00.000Z',
    details: {},
  });

describe('findDelivered', () => {
  it('finds the request whose tags a webhook brought back, among many others', async () => {
    const others = Array.from({ length: 1_500 }, (_, n) => delivery(`other-${n}`, { millrace_key: `k${n}` }));
    const stream = store().stream(streamNames.delivery);
    await stream.append(others.slice(0, 750));
    await stream.append([delivery('found', { millrace_key: 'mine', more: 'x' }), ...others.slice(750)]);
    const find = createFindDelivered({ store: store() });
    expect(await find(request({ millrace_key: 'mine' }), 0, signal)).toEqual({ providerId: 'found' });
    expect(await find(request({ millrace_key: 'mine', other: 'y' }), 0, signal)).toBeNull();
  });

  it('takes no webhook for the answer to a request without tags', async () => {
    await store()
      .stream(streamNames.delivery)
      .append([delivery('some', {})]);
    expect(await createFindDelivered({ store: store() })(request(), 0, signal)).toBeNull();
  });

  it('does not look further back than the attempt', async () => {
    await store()
      .stream(streamNames.delivery)
      .append([delivery('old', { millrace_key: 'mine' })]);
    const find = createFindDelivered({ store: store() });
    expect(await find(request({ millrace_key: 'mine' }), Date.now() + 5 * 3_600_000, signal)).toBeNull();
  });
});
