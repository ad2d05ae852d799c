/** A failure as text, with where in the tool's source it was: the first frame of its stack, by the bundle's source map. */
import { SourceMap } from 'node:module';
import type { SourceMapPayload } from 'node:module';
import type { DescribedError } from './causes.ts';

/** As V8 names a place in the bundle. */
const FRAME_PLACE = /tools@[0-9a-f]+:(\d+):(\d+)/g;
const MAX_FRAMES = 50;
/** Reading a larger one takes longer than a line of a log is worth: its frames stay those of the bundle. */
const MAX_MAP_CHARS = 1024 * 1024;

/** `Error: no weather (index.ts:3:9); caused by TypeError: fetch failed (index.ts:7:20)`. */
export function failureText(
  { causes = [], ...failure }: DescribedError & { causes?: readonly DescribedError[] | undefined },
  bundle: { revision: string; sourceMap: string },
): string {
  let map: SourceMap | undefined;
  const texts = [failure, ...causes].map(({ message, stack }) => {
    const place = sourcePlace(stack, bundle.revision, () => (map ??= mapOf(bundle)));
    return place === null ? message : `${message} (${place})`;
  });
  return texts.join('; caused by ');
}

/** The lines of a log; the errors in it with the places of the tool's source in place of the bundle's. */
export function withPlaces(lines: string[], bundle: { revision: string; sourceMap: string }): string[] {
  const script = `tools@${bundle.revision}:`;
  if (bundle.sourceMap.length > MAX_MAP_CHARS || !lines.some((line) => line.includes(script))) return lines;
  const map = mapOf(bundle);
  let frames = 0;
  const placed = (frame: string, line: string, column: string): string => {
    if (++frames > MAX_FRAMES) return frame;
    return originOf(map, Number(line), Number(column)) ?? frame;
  };
  return lines.map((line) => line.replaceAll(FRAME_PLACE, placed));
}

/** `index.ts:3:9`, or null where the stack does not show a place in the bundle that the map knows. */
function sourcePlace(stack: string, revision: string, map: () => SourceMap): string | null {
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

function mapOf({ sourceMap }: { sourceMap: string }): SourceMap {
  return new SourceMap(JSON.parse(sourceMap) as SourceMapPayload);
}

function originOf(map: SourceMap, line: number, column: number): string | null {
  const origin = map.findOrigin(line, column);
  return 'fileName' in origin ? `${origin.fileName}:${origin.lineNumber}:${origin.columnNumber}` : null;
}
