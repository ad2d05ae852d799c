import { describe, expect, test } from 'vitest';
import type { ParsedEmail } from '../../src/mail/email.ts';
import { noReplyReason } from '../../src/mail/guard.ts';
import type { NoReplyReason } from '../../src/mail/guard.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { corpusFiles, MISSING_CORPUS } from './corpus.ts';
import { DOMAINS, emailOf } from './email.fixture.ts';

const own = { domains: DOMAINS, address: 'reverser@agent.example' };

function reasonOf(email: ParsedEmail): NoReplyReason | null {
  return noReplyReason(email, own);
}

const silenced: [NoReplyReason, string[]][] = [
  ['own-marker', ['X-Millrace: reverser']],
  ['own-marker', ['x-MILLRACE: other', 'Auto-Submitted: auto-replied']],
  ['own-address', ['From: Other <other@agent.example>']],
  ['own-address', ['From: other@MÜNCHEN.example']],
  ['own-address', ['From: other@xn--mnchen-3ya.example', 'Reply-To: ann@sender.example']],
  ['own-address', ['Sender: reverser@agent.example']],
  ['own-address', ['Return-Path: <reverser+x@agent.example>']],
  ['own-address', ['From: ann@sender.example, reverser@agent.example']],
  ['delivery-report', ['Content-Type: Multipart/REPORT; report-type=delivery-status; boundary=x']],
  ['delivery-report', ['Content-Type: multipart/report; report-type=feedback-report; boundary=x']],
  ['delivery-report', ['Content-Type: message/disposition-notification']],
  ['delivery-report', ['X-Failed-Recipients: bob@x.example']],
  ['auto-submitted', ['Auto-Submitted: auto-replied']],
  ['auto-submitted', ['auto-submitted: AUTO-GENERATED']],
  ['auto-submitted', ['Auto-Submitted: auto-replied; owner-email="ann@sender.example"']],
  ['auto-submitted', ['Auto-Submitted: (really) auto-notified']],
  ['auto-submitted', ['Auto-Submitted: nobody-knows']],
  ['auto-submitted', ['Auto-Submitted: no', 'Auto-Submitted: auto-replied']],
  ['auto-submitted', ['Auto-Submitted: auto-replied', 'Return-Path: <>']],
  ['auto-submitted', ['X-Autoreply: yes']],
  ['auto-submitted', ['X-Mail-Autoreply: 1']],
  ['auto-submitted', ['X-AutoReply-From: ann@sender.example']],
  ['auto-submitted', ['X-Auto-Reply-From: ann@sender.example']],
  ['auto-submitted', ['X-FC-MachineGenerated: true']],
  ['auto-submitted', ['X-POST-MessageClass: 9; Autoresponder']],
  ['auto-submitted', ['Delivered-To: Autoresponder']],
  ['auto-submitted', ['Preference: auto_reply']],
  ['auto-response-suppress', ['X-Auto-Response-Suppress: All']],
  ['auto-response-suppress', ['X-Auto-Response-Suppress: DR, AutoReply']],
  ['auto-response-suppress', ['x-auto-response-suppress: oof']],
  ['mailing-list', ['List-Id: <friends.sender.example>']],
  ['mailing-list', ['LIST-UNSUBSCRIBE: <mailto:x@sender.example>']],
  ['mailing-list', ['Return-Path: <owner-friends@sender.example>']],
  ['mailing-list', ['Return-Path: <friends-request@sender.example>']],
  ['bulk-precedence', ['Precedence: bulk']],
  ['bulk-precedence', ['Precedence: List']],
  ['bulk-precedence', ['precedence: JUNK']],
  ['bulk-precedence', ['Precedence: auto_reply']],
  ['bulk-precedence', ['Precedence: Auto-Reply']],
  ['null-return-path', ['Return-Path: <>']],
  ['null-return-path', ['Return-Path: < > (bounce)']],
  ['null-return-path', ['Return-Path: <>', 'Return-Path: <ann@sender.example>']],
  ['system-sender', ['From: Mail Delivery System <MAILER-DAEMON@sender.example>']],
  ['system-sender', ['From: postmaster@sender.example']],
  ['system-sender', ['From: no-reply@sender.example']],
  ['system-sender', ['From: NoReply+x1@sender.example']],
  ['system-sender', ['From: do_not_reply@sender.example']],
  ['system-sender', ['From: drive-shares-noreply@sender.example']],
  ['system-sender', ['From: bounce+a=b@sender.example']],
  ['system-sender', ['From: friends-bounces@sender.example']],
  ['system-sender', ['From: bounces-friends@sender.example']],
  ['system-sender', ['From: bounce-md_30.5a1b.v1@sender.example']],
  ['system-sender', ['From: bounce.ann=x.example@sender.example']],
  ['system-sender', ['From: bounce@sender.example']],
  ['system-sender', ['From: owner-friends@sender.example']],
  ['system-sender', ['From: friends-request@sender.example']],
  ['system-sender', ['Reply-To: noreply@sender.example']],
  ['system-sender', ['Return-Path: <MAILER-DAEMON>']],
  ['several-authors', ['From: ann@sender.example, bob@x.example']],
  ['several-authors', ['From: ann@sender.example', 'From: bob@x.example']],
  ['several-authors', ['From: both: ann@sender.example, bob@x.example;']],
  ['no-sender', ['From:']],
  ['no-sender', ['From:', 'Reply-To: ann@sender.example']],
  ['no-sender', ['From: Ann']],
  ['no-sender', ['From: <>']],
  ['no-sender', ['From: ann@bob@sender.example']],
  ['no-sender', ['From: "a b"@sender.example']],
];

describe('noReplyReason', () => {
  test.each(silenced)('%s: %j', async (reason, fields) => {
    expect(reasonOf(await emailOf(fields))).toBe(reason);
  });

  test.each([
    [[]],
    [['Auto-Submitted: no']],
    [['Auto-Submitted: NO (a person wrote this); x=y']],
    [['Auto-Submitted: (sic) no;x=y']],
    [['X-Auto-Response-Suppress: DR, RN, NRN']],
    [['X-Auto-Response-Suppress: None']],
    [['X-FC-MachineGenerated: false']],
    [['X-POST-MessageClass: 1; Normal']],
    [['Delivered-To: autoresponder@agent.example']],
    [['Preference: first-class']],
    [['Precedence: normal']],
    [['Precedence: first-class']],
    [['Content-Type: multipart/reports; boundary=x']],
    [['Enlist-Id: x']],
    [['Return-Path: <ann@sender.example>', 'Return-Path: <>']],
    [['Return-Path: <bounces+12=ann@mailer.example>']],
    [['From: =?utf-8?q?bob=40x.example=2C?= <ann@sender.example>']],
    [['From: "bob@x.example, no-reply@x.example" <ann@sender.example>']],
    [['From: "reverser@agent.example" <ann@sender.example>']],
    [['From: bouncer@sender.example']],
    [['From: bounce-house@sender.example']],
    [['From: big-bounce.castles@sender.example']],
    [['From: reply@sender.example']],
    [['From: noreplymann@sender.example']],
    [['From: postmasters@sender.example']],
    [['Reply-To: reverser@agent.example']],
    [['To: no-reply@agent.example']],
  ])('a person wrote it: %j', async (fields) => {
    expect(reasonOf(await emailOf(fields))).toBeNull();
  });

  // A message that never came over SMTP, from the local mailbox, has no Return-Path: silence would be wrong.
  test('a missing Return-Path alone is no reason', async () => {
    expect(reasonOf(await emailOf(['Return-Path:']))).toBeNull();
  });

  test('the address of the inbox counts as our own, also where its domain is not listed', async () => {
    const email = await emailOf(['From: reverser@elsewhere.example']);
    expect(noReplyReason(email, { domains: [], address: 'Reverser@elsewhere.example' })).toBe('own-address');
  });

  test('a field that is made to be slow to match is matched at once', async () => {
    const slow = '-bounce+'.repeat(7_000);
    const fields = [`From: Ann <${slow}>`, `Reply-To: Ann <${slow}>`, `Return-Path: ${'('.repeat(60_000)}`];
    expect(reasonOf(await emailOf(fields))).toBe('no-sender');
  });
});

const reports = [
  ...corpusFiles('mikel-mail/multipart_report_emails/*.eml'),
  ...corpusFiles('postal-mime/{bounce,arf}.eml'),
  ...corpusFiles('mailparser/delivery-status.eml'),
];

test('the reports of real systems get no reply', async (context) => {
  context.skip(reports.length === 0, MISSING_CORPUS);
  const parsed = await Promise.all(reports.map((report) => parseMessage(report.bytes())));
  const found = parsed.map((email, index) => [reports[index]?.name, reasonOf(email)]);
  expect(found).toEqual(reports.map(({ name }) => [name, 'delivery-report']));
});
