/**
 * The new text of a reply: what its author wrote now, without quoted history and signature.
 *
 * Mail has no markup for either, so this reads the conventions of mail programs line by line: the line that
 * introduces a quotation (`On …, Ann wrote:`), the header block and the ruler that Outlook puts in its place,
 * `>` before quoted lines, `-- ` before a signature, and the lines with which telephones sign
 * (`device-signature.ts`). Ten languages.
 *
 * - Where somebody answers between quoted lines, the quotations stay: the answers make no sense without.
 * - It only ever leaves lines out; it never changes one. When in doubt a line stays.
 * - It takes linear time: every pattern sees a line, or a few, of limited length, in none of them may a part begin
 *   anew within itself, and an introduction is looked for in the first `historyChars` only.
 * Why this is ours and how it compares with libraries: docs/adr/0005-new-text.md.
 */

import { isDeviceSignature } from './device-signature.ts';

const limits = {
  /** How far into a text an introduction is looked for. Nobody writes more above what is quoted; there, lines stay. */
  historyChars: 256 * 1024,
  /** A longer line is text, whatever it looks like. */
  lineChars: 400,
  /** Lines over which a mail program may wrap an introduction. */
  introLines: 4,
  /** Lines over which a header block may spread, and fields that make one. */
  headerBlockLines: 12,
  headerBlockFields: 3,
  /** More lines than this below `-- ` are no signature. */
  signatureLines: 25,
} as const;

const QUOTED = /^\s{0,3}>/;
const BLANK = /^\s*$/;
/** Rulers and what trackers leave behind: nothing to keep at the end of a text. */
const RULER = /^\s*(?:[-_=*#~+—]{2,}|\u1427)\s*$/;
const SIGNATURE_RULER = /^--\s*$/;

/** To write, as mail programs say it. `\b` knows ASCII only, hence the look-arounds. */
const WROTE =
  /(?:(?<!\p{L})(?:wrote|writes|schrieb|a écrit|escribió|escreveu|ha scritto|schreef|geschreven|skrev|napisał(?:\(a\))?|написала?(?:\(а\))?|пишет|пише|писал|kirjoitti|yazdı)(?!\p{L})|写道|寫道|書きました|작성)/iu;
const WROTE_AT_END = new RegExp(`${WROTE.source}[\\s:：-]*$`, 'iu');
const ENDS_WITH_COLON = /[:：]\s*$/;
/** `<ann@x.example>:`, perhaps with the few letters that follow it in Japanese. */
const ADDRESS_AT_END = /<\s*[^\s<>@]{1,150}@[^\s<>@]{1,150}>[^\s<>]{0,8}\s{0,3}[:：]\s*$/;
/** What may stand before an address is no part of one, or every `;` of a table would begin one. */
const ADDRESS = /[<"(;\s][^\s<>@"(;]{1,100}@[^\s<>@]/;
/** A year or a time of day. */
const DATED = /(?<!\d)(?:(?:19|20)\d\d|\d{1,2}[:.h]\d\d)(?!\d)/;
/** `Wed, Sep 25, 2013, at 03:57 PM, Ann wrote:` and Gmail's older form: nobody dates a sentence so. */
const IN_FULL = new RegExp(
  `(?:19|20)\\d\\d.{1,20}(?<!\\d)\\d{1,2}:\\d\\d(?: GMT|(?:\\s?[ap]m)?(?:,\\s|\\s${WROTE.source}))`,
  'iu',
);
/** `On …`, `Am …`, `Le …`, a weekday or a date. */
const INTRO_START =
  /^[\s*_-]*(?:(?:on|at|am|le|el|em|il|op|den|dnia|dne|på|em|в|у|在|于)\s|\p{L}{2,15},?\s{1,3}\d{1,2}\s|\d{1,4}[-/.\s年])/iu;
/** Gmail's older forms. Strict, because lines of a log begin with a date too. */
const ISO_DATE_INTRO =
  /^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2} (?:\d{1,2}:\d\d GMT[+-]\d\d:\d\d [^<>]{1,60}$|[^<]{0,100}<\s*[^\s<>@]{1,150}@[^\s<>@]{1,150}>:?\s*$)/;

/** A line of hyphens that says `original` or `forwarded`; one that says `message` alone is somebody's own. */
const HISTORY_RULER = new RegExp(
  `^[\\s>*_]*-{3,}(?=[^-]).{0,60}(?:${[
    'original|d.origine|forwarded|ursprüng|weitergeleitet|transféré|réexpédié|reenviado|encaminhad|inoltrat',
    'oorspronkelijk|doorgestuurd|ursprung|vidarebefordra|oprindelig|opprinnelig|videresend|alkuperäi',
    'oryginaln|przekazan|исходн|оригинальн|первоначальн|пересыла|пересла|вихідн',
    '原始|转发|轉寄|元の|転送|원본|전달',
  ].join('|')})(?:[^-]|-(?!--)){0,30}-{3,}[\\s*_]*$`,
  'i',
);
const FORWARD_LINE =
  /^\s*(?:begin forwarded message|anfang der weitergeleiteten (?:nachricht|e-mail)|début du message (?:réexpédié|transféré)|inizio messaggio inoltrato|inicio del mensaje reenviado|início da mensagem (?:re)?encaminhada|begin doorgestuurd bericht|vidarebefordrat brev|начало переадресованного сообщения)\s*:\s*$/i;
const FROM_FIELD =
  /^[\s*_]*(?:from|von|de|da|från|fra|van|od|от|від|发件人|寄件者|差出人|보낸 사람)[*_\s]{0,3}[:：]/i;
const ANY_FIELD =
  /^[\s*_]*(?:from|sent|date|to|cc|subject|reply-to|von|gesendet|datum|an|betreff|de|envoyé|à|a|objet|enviado(?: el| em)?|fecha|para|asunto|data|assunto|da|inviato|oggetto|risposta|van|verzonden|aan|onderwerp|från|skickat|till|ämne|fra|sendt|til|emne|od|wysłano|do|dw|temat|от|отправлено|дата|кому|копия|тема|від|надіслано|发件人|发送时间|收件人|抄送|主题|日期|寄件者|差出人|日時|宛先|件名|보낸 사람|받는 사람|제목)[*_\s]{0,3}[:：]/i;

const SUBJECT_FIELD =
  /^[\s*_]*(?:subject|betreff|objet|asunto|assunto|oggetto|onderwerp|ämne|emne|temat|тема|主题|主旨|件名|제목)[*_\s]{0,3}[:：]/i;

/** @param text with LF line ends. */
export function newTextOf(text: string): string {
  const lines = withoutSignature(text.split('\n'));
  return withoutEnd(withoutSignature(withoutHistory(lines)))
    .join('\n')
    .trimEnd();
}

function withoutSignature(lines: string[]): string[] {
  const at = lines.findIndex((line, index) => index > 0 && SIGNATURE_RULER.test(line));
  if (at < 0 || lines.length - at > limits.signatureLines) return lines;
  // What is quoted below a signature is history, which is found by itself.
  const isLast = !lines.slice(at).some((line) => QUOTED.test(line));
  return isLast && lines.slice(0, at).some(isOwnText) ? lines.slice(0, at) : lines;
}

function isOwnText(line: string): boolean {
  return !BLANK.test(line) && !QUOTED.test(line);
}

/**
 * Leaves out what introduces history, and the history with it unless its author answered within it:
 * - own text above, and more own text below the quotation: an answer between the lines; only the
 *   introduction goes;
 * - own text above, and none below, or history that is not marked with `>`: everything from here on goes;
 * - nothing above: the introduction goes and the quotation right below it, what follows is the answer; unless that goes
 *   on between quoted lines, because then the first of them has been answered as well.
 */
function withoutHistory(lines: string[]): string[] {
  const kept: { line: string; isLeading: boolean }[] = [];
  const lastOwnLine = lines.findLastIndex(isOwnText);
  let hasOwnText = false;
  let isInterleaved = false;
  let chars = 0;
  for (let at = 0; at < lines.length;) {
    const line = lines[at] ?? '';
    const length = chars < limits.historyChars ? historyStart(lines, at, lastOwnLine) : 0;
    if (length === 0) {
      kept.push({ line, isLeading: false });
      hasOwnText ||= isOwnText(line);
      isInterleaved ||= hasOwnText && QUOTED.test(line);
      chars += line.length + 1;
      at += 1;
      continue;
    }
    at = skipBlank(lines, at + length);
    const isQuoted = QUOTED.test(lines[at] ?? '');
    if (hasOwnText && (!isQuoted || lastOwnLine < at)) break;
    if (hasOwnText || !isQuoted) continue;
    for (; at < lines.length && !isOwnText(lines[at] ?? ''); at += 1)
      kept.push({ line: lines[at] ?? '', isLeading: true });
  }
  return kept.filter(({ isLeading }) => isInterleaved || !isLeading).map(({ line }) => line);
}

/** The number of lines at `at` that introduce history; 0 where none does. */
function historyStart(lines: readonly string[], at: number, lastOwnLine: number): number {
  const line = lines[at] ?? '';
  if (!isOwnText(line) || line.length > limits.lineChars) return 0;
  if (HISTORY_RULER.test(line) || FORWARD_LINE.test(line)) {
    const next = skipBlank(lines, at + 1);
    return next - at + headerBlockLength(lines, next);
  }
  return headerBlockLength(lines, at) || introLength(lines, at, lastOwnLine);
}

/**
 * The length of a block of fields that begins with From, as Outlook puts above what it quotes. It always has a subject
 * there, and others at least an address: `From: Berlin`, `To: Paris`, `Date: Friday` are what somebody books.
 */
function headerBlockLength(lines: readonly string[], at: number): number {
  const first = lines[at] ?? '';
  if (!FROM_FIELD.test(first)) return 0;
  let isOfMail = hasAddress(first);
  let fields = 0;
  let length = 0;
  for (; length < limits.headerBlockLines; length += 1) {
    const line = lines[at + length] ?? '';
    if (!isOwnText(line)) break;
    if (line.length > limits.lineChars) continue;
    if (ANY_FIELD.test(line)) fields += 1;
    isOfMail ||= SUBJECT_FIELD.test(line);
  }
  return isOfMail && fields >= limits.headerBlockFields ? length : 0;
}

/**
 * The length of an introduction such as `On …, Ann wrote:`, which may be wrapped over a few lines. Without an address, or
 * without the verb, it may be a sentence of anybody's (`At 10:30 the server wrote:`): then a quotation below shows what it
 * is, or that nobody says anything more, or a full date on a line that stands alone.
 */
function introLength(lines: readonly string[], at: number, lastOwnLine: number): number {
  let joined = '';
  for (let length = 1; length <= limits.introLines; length += 1) {
    const line = lines[at + length - 1] ?? '';
    // A line that begins with `>` closes the address that the line before it opened.
    const isOpen = joined.lastIndexOf('<') > joined.lastIndexOf('>');
    if (BLANK.test(line) || line.length > limits.lineChars || (QUOTED.test(line) && !isOpen)) return 0;
    joined = joined === '' ? line : `${joined} ${line}`;
    const below = at + length;
    if (isIntro(joined)) {
      const isApart = BLANK.test(lines[at - 1] ?? '') && BLANK.test(lines[below] ?? '');
      if (hasAddress(joined) || (isApart && IN_FULL.test(joined))) return length;
      if (lastOwnLine < below || isQuotedBelow(lines, below)) return length;
    } else if (DATED.test(joined) && ADDRESS_AT_END.test(joined) && isQuotedBelow(lines, below)) {
      return length;
    }
    if (length === 1 && !INTRO_START.test(line) && !hasAddress(line)) return 0;
  }
  return 0;
}

function isQuotedBelow(lines: readonly string[], from: number): boolean {
  return QUOTED.test(lines[skipBlank(lines, from)] ?? '');
}

function isIntro(joined: string): boolean {
  if (ISO_DATE_INTRO.test(joined)) return true;
  if (WROTE_AT_END.test(joined))
    return hasAddress(joined) || (INTRO_START.test(joined) && DATED.test(joined));
  return ENDS_WITH_COLON.test(joined) && WROTE.test(joined) && (hasAddress(joined) || DATED.test(joined));
}

function hasAddress(line: string): boolean {
  return line.includes('@') && ADDRESS.test(line);
}

function skipBlank(lines: readonly string[], from: number): number {
  let at = from;
  while (at < lines.length && BLANK.test(lines[at] ?? '')) at += 1;
  return at;
}

/**
 * Without blank lines at either end, and without rulers, device signatures and quotations below the last own
 * line. A text that is one quotation is kept, unless it begins with the introduction: that is history. Of a photo that a
 * telephone sent nothing is left.
 */
function withoutEnd(lines: string[]): string[] {
  const start = skipBlank(lines, 0);
  const hasOwnText = lines.slice(start).some(isNew);
  let end = lines.length;
  while (end > start && isNothing(lines[end - 1] ?? '')) end -= 1;
  if (
    !lines.slice(start, end).some(isOwnText) &&
    isIntro((lines[start] ?? '').slice(0, limits.lineChars).replace(/^[\s>]+/, ''))
  )
    return [];
  while (hasOwnText && end > start && !isNew(lines[end - 1] ?? '')) end -= 1;
  return lines.slice(start, end);
}

function isNothing(line: string): boolean {
  return isBlankOrRuler(line) || (line.length <= limits.lineChars && isDeviceSignature(line));
}

function isBlankOrRuler(line: string): boolean {
  return BLANK.test(line) || RULER.test(line);
}

function isNew(line: string): boolean {
  return !QUOTED.test(line) && !isNothing(line);
}
