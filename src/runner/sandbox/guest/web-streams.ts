/**
 * The Web's streams, whole: what renders React outside of Node, such as React Email, writes into them. A program of
 * its own, as `web-classes.ts` is, because it is as large as all else together and hardly a tool wants it.
 */
import {
  ByteLengthQueuingStrategy,
  CountQueuingStrategy,
  ReadableStream,
  TransformStream,
  WritableStream,
} from 'web-streams-polyfill';
import { loadWebClasses } from './lazy-web.ts';

const HIGH_SURROGATE_AT_END = /[\ud800-\udbff]$/;
const REPLACEMENT = '\ufffd';

/** Bytes in, text out (Encoding standard, 7.5). */
class TextDecoderStream {
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  readonly readable: ReadableStream<string>;
  readonly writable: WritableStream<unknown>;

  constructor(label?: unknown, options?: { fatal?: boolean; ignoreBOM?: boolean }) {
    const decoder = new (loadWebClasses().webGlobals.TextDecoder)(label, options);
    ({ encoding: this.encoding, fatal: this.fatal, ignoreBOM: this.ignoreBOM } = decoder);
    ({ readable: this.readable, writable: this.writable } = new TransformStream<unknown, string>({
      transform(chunk, controller) {
        const text = decoder.decode(chunk, { stream: true });
        if (text !== '') controller.enqueue(text);
      },
      flush(controller) {
        const text = decoder.decode();
        if (text !== '') controller.enqueue(text);
      },
    }));
  }
}

/** Text in, UTF-8 out; half a character waits for its other half (Encoding standard, 7.6). */
class TextEncoderStream {
  readonly encoding = 'utf-8';
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<unknown>;

  constructor() {
    const encoder = new (loadWebClasses().webGlobals.TextEncoder)();
    let held = '';
    ({ readable: this.readable, writable: this.writable } = new TransformStream<unknown, Uint8Array>({
      transform(chunk, controller) {
        const text = held + String(chunk);
        held = HIGH_SURROGATE_AT_END.exec(text)?.[0] ?? '';
        const bytes = encoder.encode(text.slice(0, text.length - held.length));
        if (bytes.length > 0) controller.enqueue(bytes);
      },
      flush(controller) {
        if (held !== '') controller.enqueue(encoder.encode(REPLACEMENT));
      },
    }));
  }
}

/** By the name of the global. */
export const streamGlobals = {
  ByteLengthQueuingStrategy,
  CountQueuingStrategy,
  ReadableStream,
  TextDecoderStream,
  TextEncoderStream,
  TransformStream,
  WritableStream,
};

for (const [name, constructor] of Object.entries(streamGlobals))
  Object.defineProperty(constructor, 'name', { value: name, configurable: true });
