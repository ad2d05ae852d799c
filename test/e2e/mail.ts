/** Mail for end-to-end tests, written by hand. */
const CRLF = '\r\n';

export interface TestMail {
  to: string;
  id: string;
  from?: string;
  cc?: string;
  subject?: string;
  text?: string;
  headers?: string[];
}

/** A plain-text mail as a person's program sends it, after its way through SES. */
export function plainMail(mail: TestMail): string {
  return [
    ...headersOf(mail),
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: 8bit',
    '',
    mail.text ?? 'Hello world',
    '',
  ].join(CRLF);
}

export function htmlMail(mail: TestMail & { html: string }): string {
  return [...headersOf(mail), 'Content-Type: text/html; charset=utf-8', '', mail.html, ''].join(CRLF);
}

/** Text with files attached. */
export function mailWithFiles(
  mail: TestMail & { files: { name: string; type: string; bytes: Uint8Array }[] },
): string {
  const boundary = 'a-boundary-of-the-test';
  const parts = mail.files.map(({ name, type, bytes }) =>
    [
      `--${boundary}`,
      `Content-Type: ${type}; name="${name}"`,
      `Content-Disposition: attachment; filename="${name}"`,
      'Content-Transfer-Encoding: base64',
      '',
      Buffer.from(bytes).toString('base64').replaceAll(/.{76}/g, `$&${CRLF}`),
    ].join(CRLF),
  );
  return [
    ...headersOf(mail),
    `Content-Type: multipart/mixed; boundary="${boundary}"`,
    '',
    `--${boundary}`,
    'Content-Type: text/plain; charset=utf-8',
    '',
    mail.text ?? 'Hello world',
    ...parts,
    `--${boundary}--`,
    '',
  ].join(CRLF);
}

function headersOf({
  from = 'Ann <ann@sender.example>',
  to,
  cc,
  id,
  subject = 'Greetings',
  headers = [],
}: TestMail): string[] {
  return [
    'Return-Path: <ann@sender.example>',
    'Received: from mail.sender.example by inbound-smtp.us-east-1.amazonaws.com; Sun, 22 Nov 2026 10:00:00 +0000 (UTC)',
    `From: ${from}`,
    `To: ${to}`,
    ...(cc === undefined ? [] : [`Cc: ${cc}`]),
    `Subject: ${subject}`,
    `Message-ID: <${id}@sender.example>`,
    'Date: Sun, 22 Nov 2026 10:00:00 +0000',
    'MIME-Version: 1.0',
    ...headers,
  ];
}
