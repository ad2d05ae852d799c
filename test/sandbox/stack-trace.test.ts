/** Where in the source a failure was: looked up in the map of its bundle, which is read once. */
import { expect, it } from 'vitest';
import { createStackTraces } from '../../src/runner/sandbox/stack-trace.ts';

const MAP = '{"version":3,"sources":["index.ts"],"names":[],"mappings":"AAAA"}';
const frames = (place: string): string => `\n    at a (tools@abc:${place})`.repeat(50);

/** A bundle that counts how often its map is asked for. */
function bundleOf(revision: string, map = MAP) {
  const bundle = {
    revision,
    reads: 0,
    get sourceMap(): string {
      bundle.reads += 1;
      return map;
    },
  };
  return bundle;
}

it('a map is read once, however many frames, failures and lines of a log ask for it', () => {
  const traces = createStackTraces();
  const bundle = bundleOf('abc');
  const forged = { message: 'x', stack: frames('0:0') };
  const failure = { ...forged, causes: Array.from({ length: 5 }, () => forged) };
  for (let runs = 0; runs < 3; runs++) traces.failureText(failure, bundle);
  expect(traces.failureText({ message: 'x', stack: frames('1:1') }, bundle)).toBe('x (index.ts:1:1)');
  expect(traces.withPlaces(['at tools@abc:1:1'], bundle)).toEqual(['at index.ts:1:1']);
  expect(bundle.reads).toBe(1);
});

it('the map of another revision is another', () => {
  const traces = createStackTraces();
  traces.failureText({ message: 'x', stack: frames('1:1') }, bundleOf('abc', MAP.replace('index', 'old')));
  const stack = 'at a (tools@def:1:1)';
  expect(traces.failureText({ message: 'x', stack }, bundleOf('def'))).toBe('x (index.ts:1:1)');
});

it('a map that is too large to read leaves the failure as it is', () => {
  const traces = createStackTraces();
  const bundle = bundleOf('abc', MAP.replace('AAAA', ';'.repeat(4 * 1024 * 1024)));
  expect(traces.failureText({ message: 'x', stack: frames('1:1') }, bundle)).toBe('x');
  expect(traces.withPlaces(['at tools@abc:1:1'], bundle)).toEqual(['at tools@abc:1:1']);
});
