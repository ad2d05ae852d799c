/**
 * The mailboxes of an address field (RFC 5322 §3.4): each is exactly what its entry says, or it has no address.
 *
 * A reply goes where this points, so nothing is guessed: a parser that repairs what it reads can be talked into
 * another address than the one that everybody sees, by a comment within a comment for one. postal-mime's is such
 * a parser, and gives away the comments before anybody can look at them.
 *
 * - A comment, which may hold others, is never an address; nor is what stands in quotes.
 * - `phrase <address>` is its address, whatever the phrase looks like; without brackets there is one word with an
 *   `@`, or the entry says nothing exactly. Where quotes or comments do not end, no entry does.
 * - An address stands here as it is written. Whether it is one at all is for `address.ts`.
 */
import type { Mailbox } from './email.ts';

type Kind = 'text' | 'quoted' | 'comment' | 'space' | 'special';

interface Token {
  readonly kind: Kind;
  /** Of a quoted string or a comment, what it says, without its escapes. */
  readonly text: string;
}

type Entry = readonly Token[];

/** An entry that names somebody, but not exactly one address. */
const UNCLEAR: Mailbox = { name: '', address: '' };

const PLAIN = /[^\s"()<>,;:]+/y;
const SPACE = /\s+/y;

/**
 * The mailboxes in order, their names not decoded; members of groups stand for themselves, entries without an
 * address for nothing. What does not say exactly one address is there, with an empty one.
 */
export function mailboxesOf(field: string): Mailbox[] {
  const tokens = tokensOf(field);
  return tokens === null ? [UNCLEAR] : entriesOf(tokens).flatMap(mailboxesIn);
}

/** Null where a quoted string or a comment does not end: then nothing is known of what follows. */
function tokensOf(field: string): Token[] | null {
  const tokens: Token[] = [];
  for (let at = 0; at < field.length;) {
    const first = field.charAt(at);
    if (first === '"' || first === '(') {
      const end = enclosedEnd(field, at);
      if (end < 0) return null;
      const said = field.slice(at + 1, end - 1).replace(/\\([\s\S])/g, '$1');
      tokens.push({ kind: first === '"' ? 'quoted' : 'comment', text: said });
      at = end;
      continue;
    }
    const text = matchAt(PLAIN, field, at);
    const space = text === '' ? matchAt(SPACE, field, at) : '';
    if (text !== '') tokens.push({ kind: 'text', text });
    else if (space !== '') tokens.push({ kind: 'space', text: ' ' });
    else tokens.push({ kind: 'special', text: first });
    at += Math.max(1, text.length + space.length);
  }
  return tokens;
}

/** Behind the end of the quoted string or comment that begins here; -1 where it has none. */
function enclosedEnd(field: string, start: number): number {
  const isComment = field[start] === '(';
  let depth = 1;
  for (let at = start + 1; at < field.length; at += 1) {
    if (field[at] === '\\') at += 1;
    else if (field[at] === (isComment ? ')' : '"')) depth -= 1;
    else if (isComment && field[at] === '(') depth += 1;
    if (depth === 0) return at + 1;
  }
  return -1;
}

function matchAt(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? '';
}

/** What commas, and the ends of groups, divide; a semicolon does outside of groups too, as some programs write it. */
function entriesOf(tokens: readonly Token[]): Entry[] {
  const entries: Entry[] = [];
  let entry: Token[] = [];
  let isBracketed = false;
  for (const token of tokens) {
    const special = token.kind === 'special' ? token.text : '';
    if (special === '<') isBracketed = true;
    if (special === '>') isBracketed = false;
    if (isBracketed || special === '' || !',;:'.includes(special)) {
      entry.push(token);
      continue;
    }
    // The name of a group is nobody, unless it looks like somebody.
    if (special !== ':' || hasAt(entry)) entries.push(entry);
    entry = [];
  }
  return [...entries, entry];
}

/** One mailbox, or none. */
function mailboxesIn(entry: Entry): Mailbox[] {
  const brackets = entry.filter(isBracket);
  if (brackets.length === 0) return bareMailbox(entry);
  const [open, close] = [entry.findIndex(isBracket), entry.findLastIndex(isBracket)];
  const [before, inside, after] = [
    entry.slice(0, open),
    entry.slice(open + 1, close),
    entry.slice(close + 1),
  ];
  const isPair = brackets.map(({ text }) => text).join('') === '<>';
  if (!isPair || hasAt(after)) return [UNCLEAR];
  const address = asWritten(inside);
  if (address === '') return hasAt(before) ? [UNCLEAR] : [];
  return [{ name: shown(before) || shown(after) || comments(entry), address }];
}

function isBracket({ kind, text }: Token): boolean {
  return kind === 'special' && '<>'.includes(text);
}

/** Of an entry without brackets: the only one of its words that could be an address. */
function bareMailbox(entry: Entry): Mailbox[] {
  const words: Token[][] = [[]];
  for (const token of entry) {
    if (token.kind === 'space' || token.kind === 'comment') words.push([]);
    else words.at(-1)?.push(token);
  }
  const [word, ...more] = words.filter(hasAt);
  if (!word) return [];
  if (more.length > 0) return [UNCLEAR];
  const name = words.filter((other) => other !== word && other.length > 0).map(shown);
  return [{ name: name.join(' ') || comments(entry), address: asWritten(word) }];
}

function hasAt(tokens: Entry): boolean {
  return tokens.some(({ kind, text }) => kind === 'text' && text.includes('@'));
}

function asWritten(tokens: Entry): string {
  const written = tokens.map(({ kind, text }) =>
    kind === 'quoted' ? JSON.stringify(text) : kind === 'comment' ? ' ' : text,
  );
  return written.join('').trim();
}

function shown(tokens: Entry): string {
  const words = tokens.map(({ kind, text }) => (kind === 'comment' ? ' ' : text));
  return words.join('').replace(/\s+/g, ' ').trim();
}

/** What people wrote into comments before there were phrases: their name. */
function comments(tokens: Entry): string {
  return tokens
    .flatMap(({ kind, text }) => (kind === 'comment' ? [text.trim()] : []))
    .join(' ')
    .trim();
}
