/**
 * The revisions of the tools as a person sees them: a view of the stream `tools`, and the requests that a
 * person makes on it. Whoever keeps the tools up to date, in whatever process, follows them.
 */
import type { Clock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { ToolsRecord, ToolsRequest } from '../streams/records.ts';
import type { StreamStore } from '../streams/stream-store.ts';

export interface ToolRevisions {
  /** What serves mail now; null before the first. */
  live: ToolsRecord | null;
  /** The commit that stays live whatever is pushed. */
  pinned: string | null;
  /** Newest first. */
  revisions: ToolsRecord[];
}

const MAX_SHOWN = 100;
/** Of a commit's id or a revision, as a person gives it. */
const MIN_NAME_CHARS = 4;

export async function toolRevisions(store: StreamStore, signal: AbortSignal): Promise<ToolRevisions> {
  const { records, pinned } = await readTools(store, signal);
  const live = records.find(({ status }) => status === 'live') ?? null;
  return { live, pinned, revisions: records.slice(0, MAX_SHOWN) };
}

/**
 * Asks for one commit to be live and to stay so.
 * @param name a revision, or the beginning of a commit's id; null for the one that was live before
 * @throws MillraceError `tools.no_such_revision`, `tools.cannot_pin` (invalid)
 */
export async function pinTools(
  { store, clock }: { store: StreamStore; clock: Clock },
  name: string | null,
  signal: AbortSignal,
): Promise<ToolsRecord> {
  const { records } = await readTools(store, signal);
  const wasLive = records.filter(({ status }) => status === 'live');
  const found =
    name === null
      ? wasLive.find(({ revision }) => revision !== wasLive[0]!.revision)
      : wasLive.find((record) => isNamed(record, name));
  if (!found) throw noSuchRevision(name);
  if (!found.commit) {
    throw new MillraceError('invalid', 'tools.cannot_pin', `${found.revision} did not come from Git`, {
      hint: 'A folder has no history: change its files. With TOOLS_REPO, revisions can be pinned.',
    });
  }
  await ask({ store, clock }, { action: 'pin', commit: found.commit.id }, signal);
  return found;
}

/** Asks for the branch to be followed again. */
export function unpinTools(deps: { store: StreamStore; clock: Clock }, signal: AbortSignal): Promise<void> {
  return ask(deps, { action: 'unpin', commit: null }, signal);
}

async function ask(
  { store, clock }: { store: StreamStore; clock: Clock },
  what: Pick<ToolsRequest, 'action' | 'commit'>,
  signal: AbortSignal,
): Promise<void> {
  const at = new Date(clock.nowMs()).toISOString();
  const request: ToolsRequest = { kind: 'tools-request', version: 1, ...what, at };
  await store.stream(streamNames.tools).append([jsonRecord(request)], { signal });
}

/** All there are, newest first, and the pin that holds. */
async function readTools(
  store: StreamStore,
  signal: AbortSignal,
): Promise<{ records: ToolsRecord[]; pinned: string | null }> {
  const stream = store.stream(streamNames.tools);
  const tail = await stream.tail(signal);
  const found: ToolsRecord[] = [];
  let pinned: string | null = null;
  for (let fromSeqNum = 0; fromSeqNum < tail;) {
    const { records, nextSeqNum } = await stream.read({ fromSeqNum, signal });
    for (const record of records) {
      const parsed = parseJsonRecord(toolsStreamSchema, record);
      if (parsed.kind === 'tools') found.push(parsed);
      else if (parsed.action !== 'sync') pinned = parsed.commit;
    }
    if (nextSeqNum <= fromSeqNum) break;
    fromSeqNum = nextSeqNum;
  }
  return { records: found.toReversed(), pinned };
}

function isNamed({ revision, commit }: ToolsRecord, name: string): boolean {
  return revision === name || (name.length >= MIN_NAME_CHARS && (commit?.id.startsWith(name) ?? false));
}

function noSuchRevision(name: string | null): MillraceError {
  const message = name === null ? 'no other revision was live before' : `no revision ${name} was ever live`;
  return new MillraceError('invalid', 'tools.no_such_revision', message, {
    hint: '`millrace tools` lists the revisions, with their commits.',
  });
}
