/**
 * `millrace mails`, `millrace trace` and `millrace streams`: what they ask the daemon, and how they show it to a person.
 */
import { allStreams } from './admin-client.ts';
import type { CommandDeps } from './rerun-commands.ts';
import type { FoundMail, MailPage } from './find-mails.ts';
import { cut, stepWords } from './trace-text.ts';
import type { EmailTrace, TraceStep } from './trace.ts';

type LookDeps = Pick<CommandDeps, 'client' | 'print'>;

const SHOWN_BODY_CHARS = 2000;
const MAILS_PAGE = 100;

/** The whole life of an email, as a time line. */
export async function printTrace(
  { client, print }: LookDeps,
  { id, json }: { id: string; json: boolean },
): Promise<void> {
  const answer = await client.get<{ emails: EmailTrace[] }>('/api/admin/trace', { id });
  print(json ? JSON.stringify(answer, null, 2) : answer.emails.map(traceText).join('\n\n'));
}

function traceText({ emailId, steps, partlyRead }: EmailTrace): string {
  return [
    `email ${emailId}`,
    ...steps.map(stepText),
    ...partlyRead.map(
      ({ stream, fromSeqNum, untilSeqNum }) =>
        `Only records ${fromSeqNum} to ${untilSeqNum - 1} of ${stream} were looked at.`,
    ),
  ].join('\n');
}

function stepText(step: TraceStep): string {
  const { headline, details } = stepWords(step);
  const head = `${step.at}  ${`${step.stream}#${step.seqNum}`.padEnd(24)}  ${headline}`;
  return [head, ...details.map((line) => `    ${line}`)].join('\n');
}

/** What came, newest first, up to `count`. */
export async function printMails(
  { client, print }: LookDeps,
  options: { text: string; count: number; json: boolean },
): Promise<void> {
  const found: FoundMail[] = [];
  for (let before: number | undefined; found.length < options.count;) {
    const limit = Math.min(MAILS_PAGE, options.count - found.length);
    const query = { text: options.text, before, limit };
    const page: MailPage = await client.get('/api/admin/mails', query);
    found.push(...page.mails);
    if (page.next === null) break;
    before = page.next;
  }
  if (options.json) return print(JSON.stringify(found, null, 2));
  for (const { at, emailId, from, to, subject } of found)
    print(`${at}  ${emailId}  ${from} to ${to.join(', ')}\n    ${subject || 'no subject'}`);
  print(found.length === 0 ? 'There is no such mail.' : 'The whole life of one: `millrace trace ID`.');
}

/** Names, one a line. */
export async function printStreams({ client, print }: LookDeps, prefix: string): Promise<void> {
  const names = await allStreams(client, prefix);
  if (names.length > 0) print(names.join('\n'));
}

interface ShownRecords {
  tail: number;
  records: {
    seqNum: number;
    at: string;
    headers: [string, string][];
    json?: unknown;
    text?: string;
    base64?: string;
  }[];
  nextSeqNum: number;
  missing: { fromSeqNum: number; toSeqNum: number } | null;
}

/** From a number on, or the last ones. With `json`, one record a line, whole. */
export async function printRecords(
  { client, print }: LookDeps,
  options: { name: string; from?: number | undefined; count: number; json: boolean },
): Promise<void> {
  const { name, from, count, json } = options;
  const query = { name, from, count };
  const { tail, records, missing } = await client.get<ShownRecords>('/api/admin/streams/records', query);
  if (json) return records.forEach((record) => print(JSON.stringify(record)));
  if (missing) print(`Records ${missing.fromSeqNum} to ${missing.toSeqNum - 1} are not kept any more.`);
  for (const { seqNum, at, headers, json: value, text, base64 } of records) {
    const body = value === undefined ? (text ?? `base64 ${base64}`) : JSON.stringify(value, null, 2);
    const head = headers.map(([header, content]) => `${header}=${content}`).join('  ');
    print(`${name}#${seqNum}  ${at}  ${head}\n${cut(body, SHOWN_BODY_CHARS)}\n`);
  }
  print(`The tail of ${name} is ${tail}.`);
}
