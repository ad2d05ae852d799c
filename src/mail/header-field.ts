/**
 * Values of single header fields: one line of clean text, a Message-ID, a list of references, a date.
 *
 * Every function takes whatever a sender wrote and gives either a value that is safe to store, to show and
 * to write into another header, or nothing. All are linear in the length of their input.
 */
import { decodeWords } from 'postal-mime';

/** So that an id fits on one header line of 998 octets with its name. */
const MAX_MESSAGE_ID_CHARS = 900;
const MAX_REFERENCES = 200;

/** C0, DEL and C1 controls, and Unicode's own line ends: all that could begin a new line somewhere. */
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g;

/** Well-formed text on one line, without control characters. */
export function oneLine(value: string): string {
  return value.replace(CONTROLS, ' ').toWellFormed().trim();
}

/** An unstructured field (RFC 5322 §2.2.1) with its encoded words (RFC 2047) decoded, on one line. */
export function decodeHeaderValue(value: string): string {
  return oneLine(decodeWords(value));
}

/** One id in brackets, with comments around it, and spaces (RFC 5322 §3.6.4 and its obsolete forms, §4.5.4). */
const BRACKETED_ID = /^(?:\s|\([^()]*\))*<\s*([^<>\s]+)\s*>(?:\s|\([^()]*\))*$/;
/** Some senders leave the brackets out; what they mean is not in doubt as long as it is one token. */
const BARE_ID = /^\s*([^<>\s@]+@[^<>\s@]+)(?:\s+\([^()]*\))*\s*$/;

/** The Message-ID in its angle brackets; null where there is none or where it is not one token. */
export function parseMessageId(value: string | undefined): string | null {
  const [, token] = BRACKETED_ID.exec(value ?? '') ?? BARE_ID.exec(value ?? '') ?? [];
  if (token === undefined) return null;
  const id = `<${token}>`;
  return isSafeId(id) ? id : null;
}

function isSafeId(id: string): boolean {
  return id.length <= MAX_MESSAGE_ID_CHARS && oneLine(id) === id;
}

/**
 * The bracketed ids of a References (or In-Reply-To) field, oldest first, each once, whatever stands between
 * them. Of more than 200 the first is kept, which names the thread, and the newest.
 */
export function parseReferences(value: string | undefined): string[] {
  const found = (value ?? '').match(/<[^<>\s]{1,900}>/g) ?? [];
  const ids = [...new Set(found.filter(isSafeId))];
  const [first] = ids;
  if (first === undefined || ids.length <= MAX_REFERENCES) return ids;
  return [first, ...ids.slice(1 - MAX_REFERENCES)];
}

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
/** Minutes east of UTC of the zones that RFC 5322 §4.3 names; any other name counts as UTC there. */
const ZONES = new Map(
  Object.entries({ edt: -240, est: -300, cdt: -300, cst: -360, mdt: -360, mst: -420, pdt: -420, pst: -480 }),
);
/** A comment may follow; anything else there would say another time than what was read. */
const DATE = new RegExp(
  [
    /^\s*(?:[a-z]{2,9}\.?\s*,?\s*)?(?<day>\d{1,2})[\s-]{1,9}(?<month>[a-z]{3})[a-z]{0,6}[\s-]{1,9}(?<year>\d{2,4})/,
    /\s+(?<hour>\d{1,2}):(?<minute>\d{2})(?::(?<second>\d{2})(?:\.\d{1,9})?)?/,
    /\s*(?:(?:gmt|utc)?(?<offset>[+-]\d{2}:?\d{2})(?:\s+[a-z]{1,5})?|(?![ap]m\b)(?<zone>[a-z]{1,5}))?\s*(?:\(.*)?$/,
  ]
    .map(({ source }) => source)
    .join(''),
  'is',
);

/**
 * A Date field (RFC 5322 §3.3 with the obsolete forms of §4.3) as ISO 8601, or null. `Date.parse` would read
 * `garbage 5` as a day in 2001 and a date without a zone in the zone of this machine.
 */
export function parseDate(value: string | undefined): string | null {
  const parts = DATE.exec((value ?? '').slice(0, 200))?.groups;
  if (!parts) return null;
  const month = MONTHS.indexOf((parts['month'] ?? '').toLowerCase());
  if (month < 0) return null;
  const time = [parts['day'], parts['hour'], parts['minute'], parts['second'] ?? 0].map(Number);
  const [d = 0, h = 0, m = 0, s = 0] = time;
  if (d < 1 || d > 31 || h > 23 || m > 59 || s > 60) return null;
  const date = new Date(0);
  date.setUTCFullYear(fullYear(parts['year'] ?? ''), month, d);
  if (date.getUTCMonth() !== month) return null;
  date.setUTCHours(h, m - zoneMinutes(parts), s);
  return date.toISOString();
}

/** Two and three digits are years of the 20th century, or of this one below 50 (RFC 5322 §4.3). */
function fullYear(text: string): number {
  const year = Number(text);
  if (text.length === 4) return year;
  return text.length === 2 && year < 50 ? year + 2000 : year + 1900;
}

function zoneMinutes({ offset, zone }: Partial<Record<string, string>>): number {
  if (offset === undefined) return ZONES.get(zone?.toLowerCase() ?? '') ?? 0;
  const [hours, minutes] = [offset.slice(1, 3), offset.slice(-2)].map(Number);
  const east = (hours ?? 0) * 60 + (minutes ?? 0);
  return offset.startsWith('-') ? -east : east;
}
