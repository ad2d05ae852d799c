/** What a stage itself has to say of an outcome, such as the provider's id or the revision of the tool; on record beside it. */
export type Facts = Record<string, unknown>;

const MAX_FACTS_BYTES = 256 * 1024;

/** Without the largest where they are too much together: others count on the small ones. */
export function factsThatFit(facts: Facts): Facts {
  if (sizeOf(facts) <= MAX_FACTS_BYTES) return facts;
  const kept = Object.entries(facts).toSorted(([, a], [, b]) => sizeOf(a) - sizeOf(b));
  const dropped: string[] = [];
  while (sizeOf(Object.fromEntries(kept)) > MAX_FACTS_BYTES) dropped.push(kept.pop()![0]);
  return { ...Object.fromEntries(kept), dropped };
}

function sizeOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value) ?? '');
}
