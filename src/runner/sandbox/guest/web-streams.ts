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

/** By the name of the global. */
export const streamGlobals = {
  ByteLengthQueuingStrategy,
  CountQueuingStrategy,
  ReadableStream,
  TransformStream,
  WritableStream,
};

for (const [name, constructor] of Object.entries(streamGlobals))
  Object.defineProperty(constructor, 'name', { value: name, configurable: true });
