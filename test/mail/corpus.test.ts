/** Every mail of the shared corpus, and mutations of them: none may break the parser, whatever is wrong with it. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parsedEmailSchema } from '../../src/mail/email.ts';
import { attachmentBytes, parseMessage } from '../../src/mail/message.ts';
import { corpusFiles, MISSING_CORPUS } from './corpus.ts';

const MUTATED_BYTES = 20_000;

test('every mail is parsed, fits the schema, survives JSON, and its attachments can be read', async (context) => {
  const files = corpusFiles('**/*.eml');
  context.skip(files.length === 0, MISSING_CORPUS);
  const counts = { mails: files.length, withText: 0, withAuthor: 0, attachments: 0 };
  for (const file of files) {
    const raw = file.bytes();
    const email = await parseMessage(raw);
    expect({ name: file.name, ...parsedEmailSchema.parse(JSON.parse(JSON.stringify(email))) }).toEqual({
      name: file.name,
      ...email,
    });
    for (const { index, size, filename } of email.attachments) {
      const { byteLength } = await attachmentBytes(raw, index);
      expect({ name: file.name, filename, size: byteLength }).toEqual({ name: file.name, filename, size });
    }
    counts.withText += email.text === '' ? 0 : 1;
    counts.withAuthor += email.from === null ? 0 : 1;
    counts.attachments += email.attachments.length;
  }
  await context.annotate(JSON.stringify(counts));
  expect(counts.mails).toBe(164);
}, 60_000);

test('every mutated mail is parsed', async (context) => {
  const mails = corpusFiles('**/*.eml').map((file) => file.bytes().subarray(0, MUTATED_BYTES));
  context.skip(mails.length === 0, MISSING_CORPUS);
  const edit = fc.record({
    at: fc.nat({ max: MUTATED_BYTES }),
    remove: fc.nat({ max: 50 }),
    insert: fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.constantFrom(...['\n', '\r\n\r\n', '--', '=', '"', '<', '\0'].map((text) => Buffer.from(text))),
    ),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...mails),
      fc.array(edit, { minLength: 1, maxLength: 8 }),
      async (mail, edits) => {
        const mutated = edits.reduce(
          (bytes, { at, remove, insert }) =>
            Buffer.concat([
              bytes.subarray(0, at % bytes.length),
              insert,
              bytes.subarray((at % bytes.length) + remove),
            ]),
          mail,
        );
        const email = await parseMessage(mutated);
        expect(parsedEmailSchema.parse(JSON.parse(JSON.stringify(email)))).toEqual(email);
      },
    ),
    { numRuns: 500 },
  );
}, 60_000);
