/** A failure as text, with where in the tool's source it was: the first frame of its stack, by the bundle's source map. */
import { SourceMap } from 'node:module';
import type { SourceMapPayload } from 'node:module';
import type { DescribedError } from './causes.ts';

const MAX_FRAMES = 50;

/** `Error: no weather (index.ts:3:9); caused by TypeError: fetch failed (index.ts:7:20)`. */
export function failureText(
  { causes = [], ...failure }: DescribedError & { causes?: readonly DescribedError[] | undefined },
  bundle: { revision: string; sourceMap: string },
): string {
  const texts = [failure, ...causes].map(({ message, stack }) => {
    const place = sourcePlace(stack, bundle);
    return place === null ? message : `${message} (${place})`;
  });
  return texts.join('; caused by ');
}

/** `index.ts:3:9`, or null where the stack does not show a place in the bundle that the map knows. */
function sourcePlace(stack: string, bundle: { revision: string; sourceMap: string }): string | null {
  const frames = stack.split('\n').slice(0, MAX_FRAMES);
  const script = `tools@${bundle.revision}:`;
  for (const frame of frames) {
    const start = frame.lastIndexOf(script);
    const [, line, column] = /^(\d+):(\d+)/.exec(start < 0 ? '' : frame.slice(start + script.length)) ?? [];
    if (line === undefined || column === undefined) continue;
    const map = new SourceMap(JSON.parse(bundle.sourceMap) as SourceMapPayload);
    const origin = map.findOrigin(Number(line), Number(column));
    if ('fileName' in origin) return `${origin.fileName}:${origin.lineNumber}:${origin.columnNumber}`;
  }
  return null;
}
