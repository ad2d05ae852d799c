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
  return { live: liveOf(records) ?? null, pinned, revisions: records.slice(0, MAX_SHOWN) };
}

/**
 * Asks for one commit to be live and to stay so.
 * @param name a revision, or the beginning of a commit's id; null for the one before what is live: whoever goes back
 *   again goes further back, not forward to what was gone back from
 * @throws MillraceError `tools.no_such_revision`, `tools.cannot_pin` (invalid)
 */
export async function pinTools(
  { store, clock }: { store: StreamStore; clock: Clock },
  name: string | null,
  signal: AbortSignal,
): Promise<ToolsRecord> {
  const { records, before } = await readTools(store, signal);
  const found =
    name === null ? before : records.find((record) => record.status === 'live' && isNamed(record, name));
  if (!found && name === null) assertFromGit(liveOf(records));
  if (!found) throw noSuchRevision(name);
  if (!found.commit) throw cannotPin(found);
  await ask({ store, clock }, { action: 'pin', commit: found.commit.id }, signal);
  return found;
}

/**
 * Asks for the branch to be followed again.
 * @throws MillraceError `tools.cannot_pin` (invalid) where there is none, and no pin
 */
export async function unpinTools(
  deps: { store: StreamStore; clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  const { records, pinned } = await readTools(deps.store, signal);
  if (pinned === null) assertFromGit(liveOf(records));
  await ask(deps, { action: 'unpin', commit: null }, signal);
}

function liveOf(records: readonly ToolsRecord[]): ToolsRecord | undefined {
  return records.find(({ status }) => status === 'live');
}

function assertFromGit(live: ToolsRecord | undefined): void {
  if (live && !live.commit) throw cannotPin(live);
}

function cannotPin({ revision }: ToolsRecord): MillraceError {
  return new MillraceError('invalid', 'tools.cannot_pin', `${revision} did not come from Git`, {
    hint: 'A folder has no history: change its files. With TOOLS_REPO, revisions can be pinned.',
  });
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

/** All there are, newest first, the pin that holds, and what a rollback goes to. */
async function readTools(
  store: StreamStore,
  signal: AbortSignal,
): Promise<{ records: ToolsRecord[]; pinned: string | null; before: ToolsRecord | undefined }> {
  const stream = store.stream(streamNames.tools);
  const tail = await stream.tail(signal);
  const found: ToolsRecord[] = [];
  let line: ToolsRecord[] = [];
  let pinned: string | null = null;
  for (let fromSeqNum = 0; fromSeqNum < tail;) {
    const { records, nextSeqNum } = await stream.read({ fromSeqNum, signal });
    for (const record of records) {
      const parsed = parseJsonRecord(toolsStreamSchema, record);
      if (parsed.kind === 'tools') found.push(parsed);
      else if (parsed.action !== 'sync') pinned = parsed.commit;
      if (parsed.kind === 'tools' && parsed.status === 'live') line = lineWith(line, parsed, pinned);
    }
    if (nextSeqNum <= fromSeqNum) break;
    fromSeqNum = nextSeqNum;
  }
  const before = line.findLast(({ revision }) => revision !== line.at(-1)!.revision);
  return { records: found.toReversed(), pinned, before };
}

/** What was live, one after another, without what was gone back from: a pin to one of them ends the line there. */
function lineWith(line: ToolsRecord[], live: ToolsRecord, pinned: string | null): ToolsRecord[] {
  const commit = live.commit?.id;
  const isBack = commit !== undefined && commit === pinned;
  const at = isBack ? line.findLastIndex((record) => record.commit?.id === commit) : -1;
  return [...(at === -1 ? line : line.slice(0, at)), live];
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
