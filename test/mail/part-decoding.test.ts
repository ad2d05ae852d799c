/**
 * The faster end of the parser's decoders, against the parser as it comes: its CommonJS build, which nobody has
 * changed. The whole corpus, and messages of any bytes in any encoding.
 */
import { createRequire } from 'node:module';
import fc from 'fast-check';
import PostalMime from 'postal-mime';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { contentOf, parseMime } from '../../src/mail/mime.ts';
import { MISSING_CORPUS, corpusFiles } from './corpus.ts';

const unchanged = (createRequire(import.meta.url)('postal-mime') as { default: typeof PostalMime }).default;
const files = corpusFiles('**/*.eml');
const OPTIONS = { forceRfc822Attachments: true, maxNestingDepth: 100 };

/** What it reads, with the bytes as text so that they are compared; or why it refuses. */
async function readBy(parser: typeof PostalMime, raw: Uint8Array): Promise<object | string> {
  try {
    const email = await parser.parse(raw, OPTIONS);
    const attachments = email.attachments.map((part) => ({
      ...part,
      content: Buffer.from(contentOf(part)).toString('base64'),
    }));
    return { ...email, attachments };
  } catch (error) {
    return (error as Error).message;
  }
}

const encodings = ['base64', 'quoted-printable', '7bit', '8bit', 'binary', 'x-unknown', ''];
const types = [
  'text/plain; charset=utf-8',
  'text/html',
  'text/plain; format=flowed',
  'image/png',
  'text/calendar',
];

/** Bytes as somebody might send them: of the encoding, or not. */
const body = fc.oneof(
  fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
  fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(Buffer.from(bytes).toString('base64'))),
  fc
    .array(fc.constantFrom('a=20b', 'ümläut', '=\r\n', '=ZZ', '\r\n', 'YWJj', 'Zm9v=', '--b', '.', ' '), {
      maxLength: 40,
    })
    .map((words) => Buffer.from(words.join(''))),
);

const part = fc.record({ type: fc.constantFrom(...types), encoding: fc.constantFrom(...encodings), body });

function messageOf(parts: readonly { type: string; encoding: string; body: Buffer }[]): Buffer {
  const head =
    'From: Ann <ann@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n';
  const bodies = parts.flatMap(({ type, encoding, body: bytes }) => [
    Buffer.from(`--b\r\nContent-Type: ${type}\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n`),
    bytes,
    Buffer.from('\r\n'),
  ]);
  return Buffer.concat([Buffer.from(head), ...bodies, Buffer.from('--b--\r\n')]);
}

afterEach(() => vi.unstubAllGlobals());

describe('the faster end of the decoders', () => {
  it('needs no Blob', async () => {
    vi.stubGlobal('Blob', function refused() {
      throw new Error('a Blob');
    });
    const parts = encodings.map((encoding) => ({ type: types[0]!, encoding, body: Buffer.from('YWJj') }));
    expect((await parseMime(messageOf(parts))).text).toContain('abc');
  });

  it('reads any bytes in any encoding as the parser itself does', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 4 }), async (parts) => {
        const raw = messageOf(parts);
        expect(await readBy(PostalMime, raw)).toEqual(await readBy(unchanged, raw));
      }),
      { numRuns: 300 },
    );
  });

  it.skipIf(files.length === 0)(
    `reads the corpus as the parser itself does (or ${MISSING_CORPUS})`,
    async () => {
      for (const { name, bytes } of files) {
        const raw = bytes();
        expect(await readBy(PostalMime, raw), name).toEqual(await readBy(unchanged, raw));
      }
    },
  );
});
