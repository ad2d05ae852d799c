import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isOwnAddress, normaliseAddress } from '../../src/mail/address.ts';
import { replyRecipient } from '../../src/mail/recipient.ts';
import { DOMAINS, emailOf, hostileEmail } from './email.fixture.ts';

/** One plain address that is not ours, or nobody. */
function isPermitted(to: string | null): boolean {
  return to === null || (normaliseAddress(to) !== null && !isOwnAddress(to, DOMAINS));
}

describe('replyRecipient', () => {
  test.each([
    [[], 'ann@sender.example'],
    [['From: Ann.B@SENDER.example'], 'Ann.B@sender.example'],
    [['From: ann@bücher.example'], 'ann@xn--bcher-kva.example'],
    [['From: "Doe, Ann" <ann@sender.example>'], 'ann@sender.example'],
    [['From: "bob@x.example" <ann@sender.example>'], 'ann@sender.example'],
    [['From: bob@x.example <ann@sender.example>'], 'ann@sender.example'],
    [['From: =?utf-8?b?Ym9iQHguZXhhbXBsZSw=?= <ann@sender.example>'], 'ann@sender.example'],
    [['From: ann@sender.example (bob@x.example)'], 'ann@sender.example'],
    [['From: ann@sender.example (a (b) <evil@x.example>)'], 'ann@sender.example'],
    [['From: (a (b) evil@x.example) ann@sender.example'], 'ann@sender.example'],
    [['From: (a \\) (b) <evil@x.example>) Ann <ann@sender.example>'], 'ann@sender.example'],
    [['From: "(" <ann@sender.example> ("\\)" <evil@x.example>)'], 'ann@sender.example'],
    [['From: Ann ann@sender.example'], 'ann@sender.example'],
    [['From: (ann@sender.example)'], null],
    [['From: "ann@sender.example"'], null],
    [['From: <ann@sender.example> <bob@x.example>'], null],
    [['From: Ann ann@sender.example bob@x.example'], null],
    [['From: ann@sender.example bob@x.example <>'], null],
    [['From: <ann@sender.example> bob@x.example'], null],
    [['From: bob@x.example: ann@sender.example;'], null],
    [['From: ann@sender.example (a comment (without an end)'], null],
    [['From: Ann "a quotation without an end <ann@sender.example>'], null],
    [['From: Ann <ann@sender.example'], null],
    [['From: =?utf-8?q?Ann_=3Cann=40sender.example=3E?='], null],
    [['Reply-To: (a (b) evil@x.example) bob@x.example'], 'bob@x.example'],
    [['Reply-To: <evil@x.example> <bob@x.example>'], 'ann@sender.example'],
    [['Reply-To: bob@x.example'], 'bob@x.example'],
    [['Reply-To: bob@x.example, carl@x.example'], 'bob@x.example'],
    [['Reply-To: team: bob@x.example, carl@x.example;'], 'bob@x.example'],
    [['Reply-To: reverser@agent.example'], 'ann@sender.example'],
    [['Reply-To: reverser@AGENT.example, x@münchen.example, bob@x.example'], 'bob@x.example'],
    [['Reply-To: "a b"@x.example, <>, a@b@x.example, bob@x.example'], 'bob@x.example'],
    [['Reply-To: nobody'], 'ann@sender.example'],
    // A single label is a name in somebody's own network.
    [['Reply-To: root@localhost'], 'ann@sender.example'],
    [['From: root@localhost'], null],
    [['From: root@localhost', 'Reply-To: bob@x.example'], null],
    // Forwarded by somebody's mailbox: the author gets the reply, not who forwarded it.
    [['To: boss@x.example', 'Sender: boss@x.example', 'Return-Path: <boss@x.example>'], 'ann@sender.example'],
    [['Cc: bob@x.example, carl@x.example'], 'ann@sender.example'],
    [['From: ann@sender.example, bob@x.example'], null],
    [['From: ann@sender.example', 'From: bob@x.example', 'Reply-To: ann@sender.example'], null],
    [['From: other@agent.example', 'Reply-To: ann@sender.example'], null],
    [['From:', 'Reply-To: ann@sender.example'], null],
    [['From: ann@bob@sender.example'], null],
    [['From: =?utf-8?q?ann=40sender.example?='], null],
  ])('%j → %j', async (fields, expected) => {
    expect(replyRecipient(await emailOf(fields), DOMAINS)).toBe(expected);
  });

  test('several authors in the header outweigh what a record says', async () => {
    const email = await emailOf();
    const headers: typeof email.headers = [['FROM', 'ann@sender.example, bob@x.example']];
    expect(replyRecipient({ ...email, headers }, DOMAINS)).toBeNull();
  });

  test('whatever an email holds, it is one plain address that is not ours, or nobody', () => {
    const property = fc.property(hostileEmail, (email) => isPermitted(replyRecipient(email, DOMAINS)));
    expect(() => fc.assert(property, { numRuns: 300 })).not.toThrow();
  });
});
