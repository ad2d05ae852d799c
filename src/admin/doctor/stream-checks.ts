/**
 * The streams, read beside whatever runs: can they be reached and written to, how far behind is each stage, what is
 * parked, and what became of the tools. And the daemon itself, where one has left its address on this machine.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { daemonFolders } from '../../platform/config.ts';
import { hasCode } from '../../platform/errors.ts';
import { openConfiguredStoreToRead } from '../../streams/configured-store.ts';
import { assertReadable } from '../../streams/format.ts';
import { streamNames } from '../../streams/records.ts';
import type { StreamStore } from '../../streams/stream-store.ts';
import { findDaemonFile } from '../daemon-file.ts';
import { countOpenDeadLetters } from '../dead-letters.ts';
import { createRerun } from '../rerun.ts';
import { allStages, stageLag } from '../stage-lag.ts';
import type { StageStreams } from '../stage-streams.ts';
import { toolRevisions } from '../tool-revisions.ts';
import { fault, ok, skipped, warning } from './check.ts';
import type { Check, DoctorContext, Finding } from './check.ts';

/** What has waited for longer is not just under way. */
const OLD_MS = 15 * 60_000;
const MAX_DEAD_LETTERS = 100;
/** Records of a stage's journal among which they are looked for, the newest. */
const MAX_JOURNAL_RECORDS = 1_000_000;
const STAGES_AT_ONCE = 8;
/** No stream ever has so many records: an append under this condition is refused, if it may be made at all. */
const IMPOSSIBLE_SEQ_NUM = 2 ** 52;

export const streamChecks: readonly Check[] = [
  { part: 'daemon', look: lookAtDaemon },
  { part: 'streams', look: lookAtStreams },
];

async function lookAtDaemon({ config }: DoctorContext, signal: AbortSignal): Promise<Finding[]> {
  const start = 'Start it: systemctl start millrace.target (on a laptop: npm start).';
  let url: string;
  try {
    ({ url } = findDaemonFile(daemonFolders(config.dataDir)));
  } catch (error) {
    if (hasCode(error, 'admin.needs_root')) return [skipped('daemon', `${error.message}: run this as root`)];
    if (!hasCode(error, 'admin.daemon_not_running')) throw error;
    return [fault('daemon', 'no daemon has said where it listens', start)];
  }
  try {
    const response = await fetch(`${url}/healthz`, { signal });
    if (response.ok) return [ok('daemon', `healthy at ${url}`)];
    const { services = [], missingRoles = [] } = (await response.json()) as {
      services?: { name: string; isRunning: boolean }[];
      missingRoles?: string[];
    };
    const names = services.filter(({ isRunning }) => !isRunning).map(({ name }) => `${name} being restarted`);
    const lacking = [...names, ...missingRoles.map((role) => `nobody does the work of ${role}`)];
    return [
      fault('daemon', `unwell at ${url}: ${lacking.join(', ')}`, 'journalctl -u "millrace*" says why.'),
    ];
  } catch {
    signal.throwIfAborted();
    return [fault('daemon', `nothing answers at ${url}`, start)];
  }
}

async function lookAtStreams(context: DoctorContext, signal: AbortSignal): Promise<Finding[]> {
  const { config } = context;
  if (config.streams.kind === 'local' && !existsSync(join(config.dataDir, 'streams.db')))
    return [skipped('streams', whyNoStreams(resolve(config.dataDir)))];
  const store = await openConfiguredStoreToRead(context);
  try {
    await assertReadable(store, signal);
    const findings = [await lookAtWriting(context, store, signal), await lookAtTools(context, store, signal)];
    const stages = await allStages(store, signal);
    for (let first = 0; first < stages.length; first += STAGES_AT_ONCE)
      findings.push(
        ...(
          await Promise.all(
            stages
              .slice(first, first + STAGES_AT_ONCE)
              .map((stage) => lookAtStage(context, { store, stage }, signal)),
          )
        ).flat(),
      );
    const open = findings.filter(({ status }) => status !== 'ok');
    if (!open.some(({ part }) => part === 'lag'))
      open.push(ok('lag', `nothing waits in ${stages.length} stages that should not`));
    if (!open.some(({ part }) => part === 'parked')) open.push(ok('parked', 'no open dead letter'));
    return [...findings.filter(({ status }) => status === 'ok'), ...open];
  } finally {
    await store.close();
  }
}

function whyNoStreams(folder: string): string {
  try {
    if (existsSync(folder)) accessSync(folder, constants.X_OK);
  } catch {
    return `${folder} is not for this user: run this as root`;
  }
  return `no streams in ${folder} yet`;
}

/** Without writing: S2 is asked to append under a condition that cannot hold, and says whether it would. */
async function lookAtWriting(
  { config }: DoctorContext,
  store: StreamStore,
  signal: AbortSignal,
): Promise<Finding> {
  if (config.streams.kind === 'local') {
    const folder = resolve(config.dataDir);
    try {
      accessSync(folder, constants.W_OK);
    } catch {
      return fault(
        'streams',
        `${folder} is not writable for this user`,
        `Run this as root or as the daemon's user; else chown -R millrace: ${folder}`,
      );
    }
    return ok('streams', `readable in ${folder}`);
  }
  const probe = { body: '-' };
  try {
    await store.stream(streamNames.meta).append([probe], { matchSeqNum: IMPOSSIBLE_SEQ_NUM, signal });
  } catch (error) {
    if (!hasCode(error, 'streams.seq_num_mismatch')) throw error;
  }
  return ok('streams', `S2 basin ${config.streams.basin} can be read and written`);
}

async function lookAtTools(
  { config }: DoctorContext,
  store: StreamStore,
  signal: AbortSignal,
): Promise<Finding> {
  const { live, revisions } = await toolRevisions(store, signal);
  const newest = revisions[0];
  const source = config.tools.repo ?? resolve(config.tools.path);
  if (newest?.isTransient)
    return warning(
      'tools',
      `the tools could not be brought (${newest.error?.split('\n')[0] ?? 'no reason'}); ${live?.revision ?? 'none'} is live`,
      'It is tried again by itself. Is the Git host, or the npm registry, to be reached from here?',
    );
  if (newest?.status === 'refused')
    return warning(
      'tools',
      `the newest revision of ${source} was refused (${newest.error?.split('\n')[0] ?? 'no reason'}); ${live?.revision ?? 'none'} is live`,
      `\`millrace tools\` shows all of it; mend it${config.tools.repo === null ? ' there' : ' and push'}.`,
    );
  if (live === null)
    return warning(
      'tools',
      `no revision of ${source} was ever live`,
      config.tools.repo === null
        ? 'Is that the folder (TOOLS_PATH), does the daemon run? `millrace tools` shows what was refused.'
        : 'Is the repository reachable (TOOLS_REPO, GITHUB_PAT), does the daemon run? `millrace tools` shows what was refused.',
    );
  return ok('tools', `${live.revision} is live, from ${source}`);
}

async function lookAtStage(
  { clock, log }: DoctorContext,
  { store, stage }: { store: StreamStore; stage: StageStreams },
  signal: AbortSignal,
): Promise<Finding[]> {
  const name = stage.inbox === null ? stage.stage : `inbox ${stage.inbox}`;
  const { waiting, oldestAt, retried } = await stageLag(store, stage, signal);
  const ageMs = oldestAt === null ? 0 : clock.nowMs() - Date.parse(oldestAt);
  const findings: Finding[] = [];
  if (ageMs > OLD_MS)
    findings.push(
      fault(
        'lag',
        `${name}: ${waiting} wait, the oldest for ${Math.round(ageMs / 60_000)} min`,
        'Does its daemon run, and does it keep up? See units, daemon and keys.',
      ),
    );
  if (retried > 0)
    findings.push(
      warning(
        'lag',
        `${name}: ${retried} are tried again and again`,
        'The log says why: journalctl -u "millrace*" | grep attempt_failed.',
      ),
    );
  const { count, isAll } = await countOpenDeadLetters(
    { store, rerun: createRerun({ store, clock, log }) },
    stage,
    { limit: MAX_DEAD_LETTERS, maxRecords: MAX_JOURNAL_RECORDS, signal },
  );
  const which = stage.inbox === null ? `--stage ${stage.stage}` : `--inbox ${stage.inbox}`;
  if (count > 0)
    findings.push(
      warning(
        'parked',
        `${name}: ${isAll && count < MAX_DEAD_LETTERS ? '' : 'at least '}${count} dead letters`,
        `\`millrace dead-letters --open ${which}\` says why each; mend it, then \`millrace redrive ${which} --all\`.`,
      ),
    );
  else if (!isAll)
    findings.push(
      skipped(
        'parked',
        `${name}: none among the newest ${MAX_JOURNAL_RECORDS} records; \`millrace dead-letters --open ${which}\` looks at all`,
      ),
    );
  return findings;
}
