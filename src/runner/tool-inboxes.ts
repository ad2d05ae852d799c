/**
 * Which exported function serves which inbox. `dailyReport` serves `daily-report` and `dailyreport`; an export
 * whose name is the inbox's to the letter (`'daily-report'`) comes before all that only resemble it; and two
 * that resemble it alike are an author's slip, which is told and not guessed at.
 */
import { toolInboxNames } from '../mail/address.ts';
import { MillraceError } from '../platform/errors.ts';
import { DEFAULT_INBOX } from '../streams/live-tools.ts';

/** Mail for no tool lies under this name. */
const RESERVED = 'unrouted';

/**
 * Inbox → name of the exported function. A map, so that `constructor` is found only where it is exported.
 * @throws MillraceError `tools.inbox_conflict` (invalid)
 */
export function inboxesOf(exports: readonly string[]): Map<string, string> {
  const claims = new Map<string, string[]>();
  for (const name of exports) {
    if (name.toLowerCase() === RESERVED) throw conflict(`${name}: mail for no tool has this name`);
    const inboxes = name === DEFAULT_INBOX ? [DEFAULT_INBOX] : toolInboxNames(name);
    for (const inbox of inboxes) claims.set(inbox, [...(claims.get(inbox) ?? []), name]);
  }
  return new Map([...claims].map(([inbox, names]) => [inbox, serving(inbox, names)]));
}

/** Exported functions that serve no inbox, because their name can be none: they may be there for another reason. */
export function unreachableOf(exports: readonly string[], toolOf: ReadonlyMap<string, string>): string[] {
  const reached = new Set(toolOf.values());
  return exports.filter((name) => !reached.has(name));
}

function serving(inbox: string, names: readonly string[]): string {
  const [first = inbox, ...others] = names;
  if (others.length === 0 || names.includes(inbox)) return others.length === 0 ? first : inbox;
  throw conflict(`${names.join(' and ')} would both serve ${inbox}@`);
}

function conflict(message: string): MillraceError {
  return new MillraceError('invalid', 'tools.inbox_conflict', message, {
    hint: "Rename one, or export the one that is meant by the inbox's own name: export { f as 'daily-report' }.",
  });
}
