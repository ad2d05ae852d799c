/** What a step in the life of an email is in words: for the command line and for the console alike. */
import type { TraceStep } from './trace.ts';

const SHOWN_VALUE_CHARS = 500;

export function stepWords(step: TraceStep): { headline: string; details: string[] } {
  const { facts } = step;
  const copy = facts['copyOf'] === undefined ? '' : `, a copy of ${show(facts['copyOf'])}`;
  return { headline: `${HEADLINES[step.step](facts)}${copy}`, details: detailsOf(step) };
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

export function cut(text: string, chars: number): string {
  return text.length <= chars ? text : `${text.slice(0, chars)} … (${text.length - chars} more characters)`;
}
