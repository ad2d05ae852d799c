/**
 * `millrace trace` and `millrace streams`: what they ask the daemon, and how they show it to a person.
 */
import { allStreams } from './admin-client.ts';
import type { CommandDeps } from './rerun-commands.ts';
import type { EmailTrace, TraceStep } from './trace.ts';

type LookDeps = Pick<CommandDeps, 'client' | 'print'>;

const SHOWN_BODY_CHARS = 2000;
const SHOWN_VALUE_CHARS = 500;

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
  const { facts } = step;
  const copy = facts['copyOf'] === undefined ? '' : `, a copy of ${show(facts['copyOf'])}`;
  const head = `${step.at}  ${`${step.stream}#${step.seqNum}`.padEnd(24)}  ${HEADLINES[step.step](facts)}${copy}`;
  return [head, ...detailsOf(step).map((line) => `    ${line}`)].join('\n');
}

const HEADLINES: Record<TraceStep['step'], (facts: TraceStep['facts']) => string> = {
  event: (facts) => `webhook: from ${show(facts['from'])} to ${show(facts['receivedFor'] ?? facts['to'])}`,
  raw: (facts) => `raw message, ${show(facts['bytes'] ?? 'not all of its')} bytes`,
  inbox: (facts) => `put into the inbox, for ${show(facts['address'])}`,
  received: (facts) => `receive of ${show(facts['of'])}: ${became(facts)}`,
  run: (facts) => `run of ${show(facts['of'])}: ${became(facts)}`,
  sent: (facts) => `send of ${show(facts['of'])}: ${became(facts)}`,
  attempt: (facts) => `attempt to send ${show(facts['of'])}`,
  request: (facts) =>
    `request${'to' in facts ? ` to ${show(facts['to'])}` : ''}, key ${show(facts['idempotencyKey'])}`,
  mailbox: (facts) => `in the local mailbox, id ${show(facts['providerId'])}`,
  delivery: (facts) => `the provider says: ${show(facts['event'])}`,
  rerun: (facts) => `${show(facts['action'])} by a person, to ${show(facts['to'])}`,
};

/** Such as `done`, `dead-letter (tool.threw), attempt 1`, `deferred (…) until …`. */
function became(facts: TraceStep['facts']): string {
  const reason = facts['reason'] == null ? '' : ` (${show(facts['reason'])})`;
  const until = facts['until'] === undefined ? '' : ` until ${show(facts['until'])}`;
  return `${show(facts['outcome'])}${reason}${until}, attempt ${show(facts['attempts'])}`;
}

function detailsOf({ facts }: TraceStep): string[] {
  const { error, logs, revision, durationMs, toolMs, providerId, subject, messageId, details, suppressed } =
    facts;
  const lines: string[] = [];
  const line = (name: string, value: unknown): void => {
    if (value !== undefined && value !== null) lines.push(`${name}: ${show(value)}`);
  };
  line('subject', subject);
  line('Message-ID', messageId);
  line('tool revision', revision);
  line('took ms', toolMs ?? durationMs);
  if (isError(error)) {
    lines.push(`${error.code}: ${show(error.message)}`);
    line('hint', error.hint);
  }
  if (Array.isArray(logs)) for (const entry of logs) line('log', entry);
  if (facts['outcome'] !== undefined) line('provider id', providerId);
  if (Array.isArray(suppressed)) for (const entry of suppressed) line('suppressed', suppressionText(entry));
  if (details !== undefined && JSON.stringify(details) !== '{}') line('details', details);
  return lines;
}

/** An address, and what `delivery` said of it. */
function suppressionText(entry: Record<string, unknown>): string {
  const { address, reason, at, deliverySeqNum } = entry;
  return `${show(address)}, ${show(reason)} at ${show(at)}, delivery#${show(deliverySeqNum)}`;
}

function isError(value: unknown): value is { code: string; message: string; hint: string | null } {
  return typeof value === 'object' && value !== null && 'code' in value && 'message' in value;
}

function show(value: unknown): string {
  const text = Array.isArray(value)
    ? value.join(', ')
    : typeof value === 'string'
      ? value
      : JSON.stringify(value);
  return cut(text ?? '?', SHOWN_VALUE_CHARS);
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

function cut(text: string, chars: number): string {
  return text.length <= chars ? text : `${text.slice(0, chars)} … (${text.length - chars} more characters)`;
}
