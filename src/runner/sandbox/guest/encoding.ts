/** UTF-8 and base64 in plain JavaScript: an isolate has neither `TextEncoder` nor `Buffer`. */
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const CHUNK = 8_192;
const REPLACEMENT = 0xfffd;
const fromCharCodes = String.fromCharCode;

/** Two characters for each twelve bits: half the steps of the plain way. Made when first needed. */
let pairs: string[] | null = null;
const pairsOnce = (): string[] =>
  (pairs ??= Array.from({ length: 4_096 }, (_, bits) => ALPHABET[bits >> 6]! + ALPHABET[bits & 63]!));

export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (let index = 0; index < text.length; index++) {
    let code = text.codePointAt(index)!;
    if (code > 0xffff) index++;
    else if (code >= 0xd800 && code <= 0xdfff) code = REPLACEMENT;
    if (code < 0x80) bytes[length++] = code;
    else {
      if (code < 0x800) bytes[length++] = 0xc0 | (code >> 6);
      else {
        if (code < 0x10000) bytes[length++] = 0xe0 | (code >> 12);
        else {
          bytes[length++] = 0xf0 | (code >> 18);
          bytes[length++] = 0x80 | ((code >> 12) & 63);
        }
        bytes[length++] = 0x80 | ((code >> 6) & 63);
      }
      bytes[length++] = 0x80 | (code & 63);
    }
  }
  return bytes.slice(0, length);
}

/** @throws TypeError for malformed bytes if `fatal`; otherwise they become U+FFFD. A byte-order mark is dropped, if not told otherwise. */
export function decodeUtf8(bytes: Uint8Array, fatal: boolean, dropsMark = true): string {
  const hasMark = dropsMark && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  const parts: string[] = [];
  let units: number[] = [];
  for (let index = hasMark ? 3 : 0; index < bytes.length;) {
    const first = bytes[index]!;
    if (first < 0x80) {
      units.push(first);
      index++;
    } else {
      const { code, length } = sequenceAt(bytes, index);
      if (code < 0 && fatal) throw new TypeError('The encoded data was not valid for encoding utf-8');
      const point = code < 0 ? REPLACEMENT : code;
      if (point > 0xffff) units.push(0xd7c0 + (point >> 10), 0xdc00 + (point & 0x3ff));
      else units.push(point);
      index += length;
    }
    if (units.length >= CHUNK) {
      parts.push(fromCharCodes(...units));
      units = [];
    }
  }
  parts.push(fromCharCodes(...units));
  return parts.join('');
}

/** The code point of a sequence of several bytes, or −1 and how many bytes its broken start takes (WHATWG). */
function sequenceAt(bytes: Uint8Array, start: number): { code: number; length: number } {
  const first = bytes[start]!;
  const needed =
    first >= 0xc2 && first <= 0xdf
      ? 1
      : first >= 0xe0 && first <= 0xef
        ? 2
        : first >= 0xf0 && first <= 0xf4
          ? 3
          : 0;
  if (needed === 0) return { code: -1, length: 1 };
  let code = first & (0x3f >> needed);
  let lower = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  let upper = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  for (let step = 1; step <= needed; step++) {
    const next = bytes[start + step];
    if (next === undefined || next < lower || next > upper) return { code: -1, length: step };
    code = (code << 6) | (next & 63);
    lower = 0x80;
    upper = 0xbf;
  }
  return { code, length: needed + 1 };
}

export function encodeBase64(bytes: Uint8Array): string {
  const characters = pairsOnce();
  const parts: string[] = [];
  const tail = bytes.length % 3;
  for (let index = 0; index < bytes.length - tail; index += 3) {
    const bits = (bytes[index]! << 16) | (bytes[index + 1]! << 8) | bytes[index + 2]!;
    parts.push(characters[bits >> 12]! + characters[bits & 4_095]!);
  }
  if (tail === 1) parts.push(`${characters[bytes.at(-1)! << 4]!}==`);
  if (tail === 2) {
    const bits = (bytes.at(-2)! << 10) | (bytes.at(-1)! << 2);
    parts.push(`${characters[bits >> 6]!}${ALPHABET[bits & 63]!}=`);
  }
  return parts.join('');
}

/** WHATWG's forgiving base64. @throws Error for other characters or an impossible length. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const compact = text.replace(/[\t\n\f\r ]/g, '');
  const body = compact.length % 4 === 0 ? compact.replace(/={1,2}$/, '') : compact;
  if (body.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(body)) {
    throw new Error('The string to be decoded is not correctly encoded');
  }
  const bytes = new Uint8Array(Math.floor((body.length * 3) / 4));
  let bits = 0;
  let count = 0;
  let length = 0;
  for (const character of body) {
    bits = ((bits << 6) | ALPHABET.indexOf(character)) & 0xffffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes[length++] = (bits >> count) & 255;
    }
  }
  return bytes;
}
