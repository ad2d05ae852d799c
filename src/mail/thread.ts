/**
 * Conversations: which one an email belongs to, and how a reply stays in it (RFC 5322 §3.6.4).
 *
 * Whatever an email holds, the values given here are fit for a header: one line, well-formed, bounded.
 * Which ids the email names is `message.ts`'s to read.
 */
import { createHash } from 'node:crypto';
import { normaliseAddress } from './address.ts';
import { headerValues } from './email.ts';
import type { ParsedEmail } from './email.ts';
import { oneLine, parseReferences } from './header-field.ts';
import { onceForEach } from '../platform/once-for-each.ts';

/** RFC 5322 §2.1.1, for the whole field, so that it holds however it is folded. */
const MAX_FIELD_OCTETS = 998;
const MAX_REFERENCES = 20;
const MAX_REFERENCES_OCTETS = 900;
/** Of a subject that is read at all. */
const MAX_SUBJECT_CHARS = 8192;
/** No emoji sequence comes near it; what is longer was made to be, and is cut between code points. */
const MAX_GRAPHEME_CHARS = 64;

/**
 * The key of the conversation, for ordering: 32 hex digits. The oldest id that the email names, or its own;
 * without any, its author and subject. The author chooses all of these: it groups, it proves nothing.
 */
export const threadKey = onceForEach((email: ParsedEmail): string => {
  const id = namedRoot(email) ?? email.messageId;
  const root = id === null ? contentRoot(email.from?.address ?? '', email.subject) : ['id', id];
  return createHash('sha256').update(JSON.stringify(root)).digest('hex').slice(0, 32);
});

/** The oldest id of another email that this one names, or null. */
export function namedRoot(email: ParsedEmail): string | null {
  const repliedTo = headerValues(email, 'in-reply-to').flatMap(parseReferences);
  return email.references[0] ?? repliedTo[0] ?? null;
}

/**
 * The same for an email whose ids are not known yet: its author (a bare address), its subject and whom it is for.
 * All mail of one person about one thing to one inbox has the same, whichever conversation it belongs to.
 */
export function correspondenceKey(author: string, subject: string, recipient: string): string {
  const root = ['to', recipient, ...contentRoot(author, subject)];
  return createHash('sha256').update(JSON.stringify(root)).digest('hex').slice(0, 32);
}

function contentRoot(author: string, subject: string): string[] {
  return ['subject', normaliseAddress(author) ?? author, baseSubject(subject).toLowerCase()];
}

/**
 * What mail programs put before the subject when they answer or forward, in the languages that they speak.
 * One letter (`R:`, `I:`) and real words (`Ref:`) are left out: subjects begin so for other reasons.
 */
const PREFIXES = (
  're aw sv antw antwort réponse vs rif ynt odp atb bls res vá απ σχετ отв ответ השב رد 答复 答覆 回复 回覆 返信 답장 회신 ' +
  'fw fwd wg tr rv enc vb vl doorst İlt πρθ הועבר 转发 轉寄 転送 전달'
).replaceAll(' ', '|');
/** One prefix, as in `Re:`, `RE[2] :`, `AW：`; a list's or ticket's `[tag]` before it stays. */
const PREFIX = new RegExp(
  `^\\s*((?:\\[[^\\[\\]]{1,80}\\]\\s*){0,3})(?:${PREFIXES})\\s*(?:[\\[(^]\\d{1,4}[\\])]?)?\\s*[:：]`,
  'iu',
);

/** The subject on one line without any prefix of reply or forward. */
export function baseSubject(subject: string): string {
  let base = clean(subject.slice(0, MAX_SUBJECT_CHARS));
  for (let match = PREFIX.exec(base); match; match = PREFIX.exec(base)) {
    base = (match[1] ?? '') + base.slice(match[0].length).trimStart();
  }
  return base.trim();
}

/** Whether the subject begins with such a prefix. */
export function isReplySubject(subject: string): boolean {
  return baseSubject(subject) !== clean(subject.slice(0, MAX_SUBJECT_CHARS));
}

/** The subject with exactly one `Re:`; just that where there is nothing else. */
export function replySubject(subject: string): string {
  return fitSubject(`Re: ${baseSubject(subject)}`);
}

/** A subject on one line, cut between characters so that its field takes at most 998 octets when encoded. */
export function fitSubject(subject: string): string {
  const line = clean(subject.slice(0, MAX_SUBJECT_CHARS));
  if (fits(line)) return line;
  const start = line.slice(0, MAX_FIELD_OCTETS);
  const graphemes = Array.from(new Intl.Segmenter().segment(start), ({ segment }) => segment);
  const pieces = graphemes.flatMap((piece) =>
    piece.length > MAX_GRAPHEME_CHARS ? Array.from(piece) : [piece],
  );
  return longestFit(pieces).trimEnd();
}

/** The headers that keep a reply in its thread; none where the email has no Message-ID that can be named. */
export function threadHeaders(email: ParsedEmail): Record<string, string> {
  const id = email.messageId;
  if (id === null || !isNameable(id)) return {};
  return { 'In-Reply-To': id, References: replyReferences(email.references, id) };
}

/** Oldest first and each once: the root, which names the thread, as many of the newest as fit, and `id`. */
function replyReferences(references: readonly string[], id: string): string {
  const older = [...new Set(references)].filter((reference) => isNameable(reference) && reference !== id);
  const root = older.slice(0, 1).filter((first) => `${first} ${id}`.length <= MAX_REFERENCES_OCTETS);
  let octets = [...root, id].join(' ').length;
  const newest: string[] = [];
  for (const reference of older.slice(1).toReversed()) {
    octets += 1 + reference.length;
    if (octets > MAX_REFERENCES_OCTETS || newest.length + 2 >= MAX_REFERENCES) break;
    newest.push(reference);
  }
  return [...root, ...newest.toReversed(), id].join(' ');
}

/** Printable ASCII in brackets, short enough for a line of its own. */
function isNameable(id: string): boolean {
  return id.length <= MAX_REFERENCES_OCTETS && /^<[\x21-\x3b\x3d\x3f-\x7e]+>$/.test(id);
}

function clean(text: string): string {
  return oneLine(text).replace(/\s+/g, ' ').trim();
}

function longestFit(pieces: readonly string[]): string {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(pieces.slice(0, middle).join(''))) low = middle;
    else high = middle - 1;
  }
  return pieces.slice(0, low).join('');
}

function fits(subject: string): boolean {
  return 'Subject: '.length + encodedOctets(subject) <= MAX_FIELD_OCTETS;
}

/** RFC 2047 in base64: words of at most 75 octets, which carry 42 to 45 octets of UTF-8, on lines of their own. */
function encodedOctets(text: string): number {
  const octets = Buffer.byteLength(text);
  return octets === text.length ? octets : Math.ceil(octets / 42) * ('\r\n '.length + 75);
}
