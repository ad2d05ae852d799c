/**
 * Tools from a Git repository: its branch is looked at once a minute, and at once when a push is announced on
 * the stream `tools`. A commit is checked out into a folder of its own, built, and published; then the folder
 * is gone. Runners take what is published from the streams (`published-tools.ts`).
 *
 * The stream is the only memory: what is live, what is pinned, and of every commit that was live where its
 * bundle lies. So going back needs neither the Git host nor a build, and a restart changes nothing. A commit
 * that was refused is not tried again until the branch moves or somebody asks. What is transient (the Git host or the
 * registry is away) is tried again, and its record is followed by what holds once it is over.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { orAborted } from '../../platform/abort.ts';
import type { Clock } from '../../platform/clock.ts';
import { errorKind, errorMessage } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { backoffMs } from '../../platform/retry.ts';
import { parseJsonRecord, streamNames, toolsStreamSchema } from '../../streams/records.ts';
import type { ToolsRecord } from '../../streams/records.ts';
import type { StreamRecord, StreamStore } from '../../streams/stream-store.ts';
import type { Commit } from '../tool-set.ts';
import type { CommitStatuses } from './commit-statuses.ts';
import type { GitRepository } from './git-checkout.ts';
import type { Publisher } from './publisher.ts';

export interface GitSyncDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  repository: GitRepository;
  /** Puts the packages that the tools name beside them: `installPackages`. */
  install: (root: string, path: string, signal: AbortSignal) => Promise<void>;
  /** Takes away what `install` left where it was killed. */
  sweepInstalls: () => Promise<void>;
  publisher: Publisher;
  statuses: CommitStatuses;
}

export interface GitSyncOptions {
  /** Where checkouts lie while they are built. */
  directory: string;
  /** The folder of the tools inside of the repository, or the file. */
  path: string;
  /** Default a minute, and up to a tenth more. */
  intervalMs?: number;
}

export interface GitSync {
  /** Keeps what is live as the branch, or the pin, has it; until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
  /**
   * Looks once, perhaps beside a process that runs, and so sweeps nothing. Is what should be live live now, or
   * refused (now or before)?
   * @throws what is transient
   */
  once(signal: AbortSignal): Promise<ToolsRecord['status']>;
}

const DEFAULT_INTERVAL_MS = 60_000;
const INTERVAL_JITTER = 0.1;
const RETRY = { baseMs: 5_000, maxMs: 900_000 };
/** Bundles of revisions that were live: a rollback further back than this fetches and builds again. */
const MAX_BUNDLES = 100;

export function createGitSync(deps: GitSyncDeps, options: GitSyncOptions): GitSync {
  return {
    run: (signal) => new Following(deps, options).run(signal),
    once: (signal) => new Following(deps, options).once(signal),
  };
}

class Following {
  readonly #deps: GitSyncDeps;
  readonly #options: GitSyncOptions;
  /** The newest record of every commit that ever was live, by its id; the last one last. */
  readonly #history = new Map<string, ToolsRecord>();
  #pinned: string | null = null;
  /** The newest record of what is live, of whatever source. */
  #live: ToolsRecord | null = null;
  /** The newest record, of whatever commit. */
  #newest: ToolsRecord | null = null;
  /** What refused a commit for good since something went live, by its id. */
  readonly #refused = new Map<string, ToolsRecord>();
  /** What was to be live at the last look. */
  #wanted: string | null = null;
  /** Ends the look that is under way, as another commit is to be live. */
  #overtaken = new AbortController();
  /** What the look that is under way is about, as soon as that is known. */
  #attempted: Commit | undefined;
  #isAsked = false;
  #wake = Promise.withResolvers<void>();

  constructor(deps: GitSyncDeps, options: GitSyncOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const all = AbortSignal.any([signal, failed.signal]);
    let following: Promise<void> | undefined;
    try {
      await this.#sweep();
      const nextSeqNum = await this.#begin(all);
      // A new start may be a new release: what it was refused for may be gone.
      this.#refused.clear();
      following = this.#followRequests(nextSeqNum, all).catch((error: unknown) => failed.abort(error));
      await this.#keepUp(all);
    } catch (error) {
      if (!all.aborted) failed.abort(error);
    }
    await following;
    if (!signal.aborted) throw failed.signal.reason;
  }

  async once(signal: AbortSignal): Promise<ToolsRecord['status']> {
    await this.#begin(signal);
    try {
      return await this.#sync(signal);
    } catch (error) {
      signal.throwIfAborted();
      await this.#recordFailure(error, signal);
      if (errorKind(error) === 'transient') throw error;
      return 'refused';
    } finally {
      await this.#deps.statuses.settled();
    }
  }

  async #begin(signal: AbortSignal): Promise<number> {
    await mkdir(this.#options.directory, { recursive: true });
    const nextSeqNum = await this.#readHistory(signal);
    const live = this.#live;
    if (live && !(await this.#deps.publisher.isServing(live, signal))) this.#live = null;
    return nextSeqNum;
  }

  async #keepUp(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    const { intervalMs = DEFAULT_INTERVAL_MS } = this.#options;
    for (let failures = 0; !signal.aborted;) {
      let waitMs = intervalMs * (1 + INTERVAL_JITTER * clock.random());
      this.#overtaken = new AbortController();
      const overtaken = this.#overtaken.signal;
      try {
        await this.#sync(AbortSignal.any([signal, overtaken]));
        failures = 0;
      } catch (error) {
        signal.throwIfAborted();
        if (overtaken.aborted) {
          this.#giveUp();
          continue;
        }
        await this.#recordFailure(error, signal);
        waitMs = backoffMs(++failures, RETRY, clock.random);
        log.warn({ error, failures, waitMs }, 'tools.sync_failed');
      }
      const woken = new AbortController();
      const timer = clock.sleep(waitMs, AbortSignal.any([signal, woken.signal])).catch(() => {});
      await orAborted(Promise.race([timer, this.#wake.promise]), signal);
      woken.abort();
    }
  }

  #giveUp(): void {
    const commit = this.#attempted;
    if (!commit) return;
    this.#deps.statuses.report(commit.id, { state: 'error', description: 'Given up: another is pinned' });
  }

  async #recordFailure(error: unknown, signal: AbortSignal): Promise<void> {
    const { publisher, statuses } = this.#deps;
    if (errorKind(error) === 'bug') throw error;
    const commit = this.#attempted;
    if (commit) statuses.report(commit.id, { state: 'error', description: errorMessage(error) });
    this.#note(await publisher.refuse(error, commit, signal));
  }

  /** Nothing is to be built: a failure that is over must not stay the newest record. */
  async #recordAgain(record: ToolsRecord | null, signal: AbortSignal): Promise<void> {
    if (!record || this.#newest?.status !== 'refused' || this.#newest === record) return;
    this.#note(await this.#deps.publisher.recordAgain(record, signal));
  }

  /** One look at the repository; brings what it finds. */
  async #sync(signal: AbortSignal): Promise<ToolsRecord['status']> {
    const isAsked = this.#isAsked;
    this.#isAsked = false;
    this.#wake = Promise.withResolvers<void>();
    this.#attempted = undefined;
    try {
      const id = this.#pinned ?? (await this.#deps.repository.head(signal));
      // To be tried again: somebody asks, or the branch moved and came back.
      if (isAsked || (this.#wanted !== null && id !== this.#wanted)) this.#refused.clear();
      this.#wanted = id;
      if (id === this.#live?.commit?.id) {
        this.#refused.clear();
        await this.#recordAgain(this.#live, signal);
        return 'live';
      }
      const refusal = this.#refused.get(id);
      if (refusal) {
        await this.#recordAgain(refusal, signal);
        return 'refused';
      }
      return await this.#bring(id, signal);
    } finally {
      if (!signal.aborted) await this.#fallBack(signal);
    }
  }

  /** Where nothing is live that can run, the last that was is better than nothing. */
  async #fallBack(signal: AbortSignal): Promise<void> {
    const last = [...this.#history.keys()].at(-1);
    if (this.#live !== null || last === undefined || this.#refused.has(last)) return;
    const attempted = this.#attempted;
    await this.#bring(last, signal);
    this.#attempted = attempted;
  }

  /** @throws what is transient */
  async #bring(id: string, signal: AbortSignal): Promise<ToolsRecord['status']> {
    const before = this.#history.get(id);
    const again = before ? await this.#deps.publisher.again(before, signal) : null;
    const record = again ?? (await this.#build(id, signal));
    this.#note(record);
    if (record.status === 'live') await this.#forgetOldest(signal);
    return record.status;
  }

  async #build(id: string, signal: AbortSignal): Promise<ToolsRecord> {
    const { repository, install, publisher, statuses, clock } = this.#deps;
    const { path } = this.#options;
    const root = join(this.#options.directory, `incoming-${clock.uuid()}`);
    let commit: Commit = this.#history.get(id)?.commit ?? { id, subject: '' };
    this.#attempted = commit;
    statuses.report(id, { state: 'pending', description: 'Building and testing' });
    try {
      commit = await repository.checkout(id, root, signal);
      this.#attempted = commit;
      await install(root, path, signal);
      const record = await publisher.load({ root, directory: join(root, path), commit }, signal);
      statuses.report(id, verdictOf(record));
      return record;
    } catch (error) {
      signal.throwIfAborted();
      if (errorKind(error) !== 'invalid') throw error;
      const record = await publisher.refuse(error, commit, signal);
      statuses.report(id, verdictOf(record));
      return record;
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  }

  async #forgetOldest(signal: AbortSignal): Promise<void> {
    const kept = new Set<string>();
    for (const record of [...this.#history.values()].toReversed()) {
      if (kept.has(record.revision) || !record.bundle) continue;
      if (kept.size < MAX_BUNDLES) {
        kept.add(record.revision);
        continue;
      }
      await this.#deps.publisher.forget(record, signal);
      delete record.bundle;
    }
  }

  /** Of all processes of this role one has its turn: whoever left something there is no more. */
  async #sweep(): Promise<void> {
    const { directory } = this.#options;
    for (const name of await readdir(directory).catch(() => []))
      await rm(join(directory, name), { recursive: true, force: true });
    await this.#deps.sweepInstalls();
  }

  async #readHistory(signal: AbortSignal): Promise<number> {
    const stream = this.#deps.store.stream(streamNames.tools);
    const tail = await stream.tail(signal);
    let fromSeqNum = 0;
    while (fromSeqNum < tail) {
      const { records, nextSeqNum } = await stream.read({ fromSeqNum, signal });
      for (const record of records) this.#take(record);
      if (nextSeqNum <= fromSeqNum) break;
      fromSeqNum = nextSeqNum;
    }
    return fromSeqNum;
  }

  async #followRequests(fromSeqNum: number, signal: AbortSignal): Promise<void> {
    const stream = this.#deps.store.stream(streamNames.tools);
    for await (const { records } of stream.follow({ fromSeqNum, signal })) {
      const asked = records.map((record) => this.#take(record));
      if (!asked.includes('tools-request')) continue;
      this.#isAsked = true;
      this.#wake.resolve();
    }
  }

  /** What one record of the stream changes here; says its kind. */
  #take(record: StreamRecord): 'tools' | 'tools-request' {
    const parsed = parseJsonRecord(toolsStreamSchema, record);
    if (parsed.kind === 'tools') this.#note(parsed);
    else if (parsed.action !== 'sync') {
      this.#pinned = parsed.action === 'pin' ? parsed.commit : null;
      // Or what is being built would go live after it.
      this.#overtaken.abort();
    }
    return parsed.kind;
  }

  #note(record: ToolsRecord): void {
    const { commit, status, isTransient = false } = record;
    this.#newest = record;
    if (status === 'refused') {
      if (!commit || isTransient) return;
      this.#refused.set(commit.id, record);
      return;
    }
    this.#live = record;
    this.#refused.clear();
    if (!commit) return;
    this.#history.delete(commit.id);
    this.#history.set(commit.id, record);
  }
}

function verdictOf({ status, inboxes, error }: ToolsRecord): Parameters<CommitStatuses['report']>[1] {
  if (status === 'live') return { state: 'success', description: `Live, serving ${inboxes.join(', ')}` };
  return { state: 'failure', description: error ?? '' };
}
