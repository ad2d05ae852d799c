/**
 * `millrace tools` and what it does with revisions: what they ask the daemon, and what they print. A pin is a
 * request: the daemon takes it up at once, and `millrace tools` shows when it has.
 */
import type { ToolsRecord } from '../streams/records.ts';
import type { CommandDeps } from './rerun-commands.ts';
import type { ToolRevisions } from './tool-revisions.ts';

type ToolCommandDeps = Pick<CommandDeps, 'client' | 'print'>;

const COMMIT_CHARS = 12;

/** Revisions, newest first, and what the live one serves. */
export async function printTools({ client, print }: ToolCommandDeps, json: boolean): Promise<void> {
  const answer: ToolRevisions = await client.get('/api/admin/tools');
  if (json) return print(JSON.stringify(answer, null, 2));
  const { live, pinned, revisions } = answer;
  const newest = revisions.find(({ status }) => status === 'live');
  for (const record of revisions) print(revisionText(record, record === newest));
  if (live) print(`Live: ${named(live)}, serving ${live.inboxes.join(', ')}.`);
  else print('No tools are live.');
  if (pinned !== null)
    print(`Pinned to ${pinned.slice(0, COMMIT_CHARS)}; \`millrace tools unpin\` follows the branch.`);
}

/** @param revision null: what was live before */
export async function pinRevision(
  { client, print }: ToolCommandDeps,
  revision: string | null,
): Promise<void> {
  const { live }: ToolRevisions = await client.get('/api/admin/tools');
  const record: ToolsRecord = await client.post('/api/admin/tools/pin', { revision });
  const stays = 'is asked for, and stays whatever is pushed, until `millrace tools unpin`.';
  if (revision !== null || live === null) return print(`${named(record)} ${stays}`);
  print(`Rolled back from ${named(live)} to ${named(record)}: it ${stays}`);
}

export async function unpinRevision({ client, print }: ToolCommandDeps): Promise<void> {
  await client.post('/api/admin/tools/unpin', {});
  print('The branch is followed again.');
}

/** `live` is said of what serves mail now alone: the others were. */
function revisionText(record: ToolsRecord, isLive: boolean): string {
  const { at, status, inboxes, unreachable = [], error, isTransient = false } = record;
  const failed = isTransient ? 'failed' : status;
  const what = status === 'live' && !isLive ? 'was live' : failed;
  const serves = status === 'live' ? [`serves ${inboxes.join(', ')}`] : [];
  const missed = unreachable.length === 0 ? [] : [`no mail can reach ${unreachable.join(', ')}`];
  const lines = [...serves, ...missed, ...(error?.split('\n') ?? [])].map((line) => `    ${line}`);
  return [`${at}  ${what.padEnd(8)}  ${named(record)}`, ...lines].join('\n');
}

/** Such as `5f2a… (commit 81c0…, "Answer in French")`; a refused revision has only its commit. */
function named({ revision, status, commit }: ToolsRecord): string {
  const from = commit ? `commit ${commit.id.slice(0, COMMIT_CHARS)} "${commit.subject}"` : '';
  if (status === 'refused') return from;
  return from === '' ? revision : `${revision}, ${from}`;
}
