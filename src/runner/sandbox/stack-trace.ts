/** A failure as text, with where in the tool's source it was: the first frame of its stack, by the bundle's source map. */
import { SourceMap } from 'node:module';
import type { SourceMapPayload } from 'node:module';
import type { DescribedError } from './causes.ts';

/** As V8 names a place in the bundle. */
const FRAME_PLACE = /tools@[0-9a-f]+:(\d+):(\d+)/g;
const MAX_FRAMES = 50;
/** Reading one takes the daemon a quarter of a second for each megabyte: of a larger one the places stay the bundle's. */
const MAX_MAP_CHARS = 4 * 1024 * 1024;

interface Mapped {
  revision: string;
  /** JSON. */
  sourceMap: string;
}

export interface StackTraces {
  /** `Error: no weather (index.ts:3:9); caused by TypeError: fetch failed (index.ts:7:20)`. */
  failureText(
    failure: DescribedError & { causes?: readonly DescribedError[] | undefined },
    bundle: Mapped,
  ): string;
  /** The lines of a log; the errors in it with the places of the tool's source in place of the bundle's. */
  withPlaces(lines: string[], bundle: Mapped): string[];
}

/** The map that was read last is kept: a tool that fails, fails again. */
export function createStackTraces(): StackTraces {
  let last: { revision: string; map: SourceMap | null } | null = null;

  function mapOf(bundle: Mapped): SourceMap | null {
    const { revision } = bundle;
    if (last?.revision !== revision) last = { revision, map: parsedMap(bundle.sourceMap) };
    return last.map;
  }

  return {
    failureText({ causes = [], ...failure }, bundle) {
      const texts = [failure, ...causes].map(({ message, stack }) => {
        const place = sourcePlace(stack, bundle.revision, () => mapOf(bundle));
        return place === null ? message : `${message} (${place})`;
      });
      return texts.join('; caused by ');
    },
    withPlaces(lines, bundle) {
      if (!lines.some((line) => line.includes(`tools@${bundle.revision}:`))) return lines;
      const map = mapOf(bundle);
      let frames = 0;
      const placed = (frame: string, line: string, column: string): string => {
        if (++frames > MAX_FRAMES) return frame;
        return originOf(map, Number(line), Number(column)) ?? frame;
      };
      return lines.map((line) => line.replaceAll(FRAME_PLACE, placed));
    },
  };
}

function parsedMap(json: string): SourceMap | null {
  return json.length > MAX_MAP_CHARS ? null : new SourceMap(JSON.parse(json) as SourceMapPayload);
}

/** `index.ts:3:9`, or null where the stack does not show a place in the bundle that the map knows. */
function sourcePlace(stack: string, revision: string, map: () => SourceMap | null): string | null {
  const frames = stack.split('\n').slice(0, MAX_FRAMES);
  const script = `tools@${revision}:`;
  for (const frame of frames) {
    const start = frame.lastIndexOf(script);
    const [, line, column] = /^(\d+):(\d+)/.exec(start < 0 ? '' : frame.slice(start + script.length)) ?? [];
    if (line === undefined || column === undefined) continue;
    const origin = originOf(map(), Number(line), Number(column));
    if (origin !== null) return origin;
  }
  return null;
}

function originOf(map: SourceMap | null, line: number, column: number): string | null {
  const origin = map?.findOrigin(line, column);
  return origin && 'fileName' in origin
    ? `${origin.fileName}:${origin.lineNumber}:${origin.columnNumber}`
    : null;
}
