/**
 * Which versions of records this release knows. It is the one table that says so: `records.ts` refuses what is
 * newer wherever a record is read, `format.ts` looks for it before anything runs.
 *
 * A version is raised where an older release that does not know of the change would do the wrong thing; a field
 * that may safely be passed over is added without it. docs/adr/0035-versions-of-records.md says how.
 */
import { z } from 'zod';

/** The highest version of each kind that this release reads. */
export const recordVersions: ReadonlyMap<string, number> = new Map(
  Object.entries({
    attempt: 1,
    checkpoint: 1,
    delivery: 1,
    email: 1,
    format: 1,
    intent: 1,
    keys: 1,
    mailbox: 1,
    member: 1,
    outcome: 1,
    probe: 1,
    request: 1,
    rerun: 1,
    restored: 1,
    state: 1,
    restoring: 1,
    revision: 1,
    routes: 1,
    suppression: 1,
    'suppression-lift': 1,
    'suppression-position': 1,
    tools: 1,
    'tools-request': 1,
  }),
);

/**
 * The state of the streams as a whole, by one number: it grows with any version, and with what no version tells
 * (a new kind on an old stream, a header, the pieces of a blob). `writes` lags behind `reads` by one release, so
 * that there is always a way back by one.
 */
export const streamFormat = { reads: 1, writes: 1 } as const;

const versionedSchema = z.object({ kind: z.string(), version: z.number() });

/** The kind and version of a body that a newer release wrote; null for all that we know, or that is none of ours. */
export function newerVersionOf(value: unknown): { kind: string; version: number; known: number } | null {
  const body = versionedSchema.safeParse(value).data;
  const known = body && recordVersions.get(body.kind);
  return known !== undefined && body!.version > known ? { ...body!, known } : null;
}
