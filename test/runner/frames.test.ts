/** Frames come out as they went in, however the pipe cuts them; what is too long ends the conversation. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createFrameReader, frameOf, MAX_FRAME_BYTES } from '../../src/runner/sandbox/frames.ts';

it('any payloads survive any cuts', () => {
  const payloads = fc.array(fc.string({ unit: 'grapheme', maxLength: 50 }), { maxLength: 8 });
  fc.assert(
    fc.property(payloads, fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }), (sent, cuts) => {
      const received: string[] = [];
      const read = createFrameReader((payload) => received.push(payload));
      let bytes = Buffer.concat(sent.map(frameOf));
      for (let index = 0; bytes.length > 0; index++) {
        const cut = cuts[index % cuts.length]!;
        expect(read(bytes.subarray(0, cut))).toBe(true);
        bytes = bytes.subarray(cut);
      }
      expect(received).toEqual(sent.map((payload) => Buffer.from(payload).toString()));
    }),
  );
});

it('a frame above the limit is refused by its header, and so is all that follows', () => {
  const received: string[] = [];
  const read = createFrameReader((payload) => received.push(payload));
  const header = Buffer.alloc(4);
  header.writeUInt32BE(MAX_FRAME_BYTES + 1);
  expect(read(frameOf('before'))).toBe(true);
  expect(read(header)).toBe(false);
  expect(read(frameOf('after'))).toBe(false);
  expect(received).toEqual(['before']);
});
