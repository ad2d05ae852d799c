/**
 * How deep JSON is nested: `JSON.parse` takes any depth, and `JSON.stringify` of the same value overflows the stack. What
 * a tool hands over is therefore measured before it is written anywhere.
 */

/** Whether no list or object stands in more than so many others. */
export function isNestedWithin(value: unknown, depth: number): boolean {
  let level: unknown[] = [value];
  for (let left = depth; level.length > 0; left--) {
    if (left < 0) return false;
    level = level.flatMap((each) =>
      typeof each === 'object' && each !== null ? (Object.values(each) as unknown[]) : [],
    );
  }
  return true;
}
