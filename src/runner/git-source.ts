/**
 * Tools from a Git repository: its branch is looked at once a minute, and at once when a push is announced on
 * the stream `tools`. A commit is checked out beside the live one, under a name of its own, and handed over.
 *
 * What was live before a restart goes live again first, from this machine's disk: neither a Git host that is
 * away nor a broken push keeps mail waiting. A commit that was refused is not tried again until the branch
 * moves or somebody asks. Which commit is pinned, and what was live, is read from the stream: there is no
 * other memory. Several daemons follow the branch each for itself.
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import { errorKind, MillraceError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { backoffMs } from '../platform/retry.ts';
import { parseJsonRecord, streamNames, toolsStreamSchema } from '../streams/records.ts';
import type { StreamRecord, StreamStore } from '../streams/stream-store.ts';
import type { GitRepository } from './git-checkout.ts';
import type { Commit, ToolFiles, ToolSource, ToolTarget } from './tool-set.ts';

interface GitSourceDeps {
  store: StreamStore;
  clock: Clock;
  log: Log;
  repository: GitRepository;
  /** Puts the packages that the tools name beside them: `installPackages`. */
  install: (root: string, path: string, signal: AbortSignal) => Promise<void>;
}

interface GitSourceOptions {
  /** Where checkouts lie, for this repository alone. */
  directory: string;
  /** The folder of the tools inside of the repository, or the file. */
  path: string;
  /** Default a minute, and up to a tenth more. */
  intervalMs?: number;
}

const DEFAULT_INTERVAL_MS = 60_000;
const INTERVAL_JITTER = 0.1;
const RETRY = { baseMs: 5_000, maxMs: 900_000 };
/** Of revisions that were live, on disk: what a rollback finds without the Git host. */
const MAX_CHECKOUTS = 5;

export function createGitSource(deps: GitSourceDeps, options: GitSourceOptions): ToolSource {
  return { run: (target, signal) => new GitSync(deps, options, target).run(signal) };
}

class GitSync {
  readonly #deps: GitSourceDeps;
  readonly #options: GitSourceOptions;
  readonly #target: ToolTarget;
  /** Every commit that ever was live, by its id; the last one last. */
  readonly #history = new Map<string, Commit>();
  #pinned: string | null = null;
  #live: string | null = null;
  #refused: string | null = null;
  /** The commit that was fetched last. */
  #arriving: Commit | null = null;
  #isAsked = false;
  #wake = Promise.withResolvers<void>();

  constructor(deps: GitSourceDeps, options: GitSourceOptions, target: ToolTarget) {
    this.#deps = deps;
    this.#options = options;
    this.#target = target;
  }

  async run(signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const all = AbortSignal.any([signal, failed.signal]);
    await mkdir(this.#options.directory, { recursive: true });
    const nextSeqNum = await this.#readHistory(all);
    const following = this.#followRequests(nextSeqNum, all).catch((error: unknown) => failed.abort(error));
    try {
      await this.#bringBack(all);
      await this.#keepUp(all);
    } catch (error) {
      if (!all.aborted) failed.abort(error);
    }
    await following;
    if (!signal.aborted) throw failed.signal.reason;
  }

  async #keepUp(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    const { intervalMs = DEFAULT_INTERVAL_MS } = this.#options;
    for (let failures = 0; !signal.aborted;) {
      let waitMs = intervalMs * (1 + INTERVAL_JITTER * clock.random());
      try {
        await this.#sync(signal);
        failures = 0;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof MillraceError && error.kind === 'bug') throw error;
        await this.#target.refuse(error, undefined, signal);
        waitMs = backoffMs(++failures, RETRY, clock.random);
        log.warn({ error, failures, waitMs }, 'tools.sync_failed');
      }
      const woken = new AbortController();
      const timer = clock.sleep(waitMs, AbortSignal.any([signal, woken.signal])).catch(() => {});
      await orAborted(Promise.race([timer, this.#wake.promise]), signal);
      woken.abort();
    }
  }

  /** What was live before goes live again while its files are still here. */
  async #bringBack(signal: AbortSignal): Promise<void> {
    await this.#sweep();
    const last = this.#pinned ?? [...this.#history.keys()].at(-1);
    if (last !== undefined && this.#isHere(last)) await this.#load(last, signal);
  }

  /** One look at the repository; brings what it finds. */
  async #sync(signal: AbortSignal): Promise<void> {
    const isAsked = this.#isAsked;
    this.#isAsked = false;
    this.#wake = Promise.withResolvers<void>();
    try {
      const id = this.#pinned ?? (await this.#deps.repository.head(signal));
      if (id === this.#live) this.#refused = null;
      else if (id !== this.#refused || isAsked) {
        const status = await this.#bring(id, signal);
        this.#refused = status === 'refused' ? id : null;
      }
    } finally {
      signal.throwIfAborted();
      await this.#fallBack(signal);
    }
  }

  /** Where nothing is live, what was live elsewhere, or before this disk, is better than nothing. */
  async #fallBack(signal: AbortSignal): Promise<void> {
    const last = [...this.#history.keys()].at(-1);
    if (this.#live === null && last !== undefined && last !== this.#refused) await this.#bring(last, signal);
  }

  /** @throws what is transient */
  async #bring(id: string, signal: AbortSignal): Promise<'live' | 'refused'> {
    const { repository, install, clock } = this.#deps;
    if (this.#isHere(id)) return this.#load(id, signal);
    const incoming = `incoming-${clock.uuid()}`;
    try {
      const commit = await repository.checkout(id, this.#at(incoming), signal);
      this.#arriving = commit;
      await install(this.#at(incoming), this.#options.path, signal);
      await rename(this.#at(incoming), this.#at(id));
    } catch (error) {
      await this.#remove(incoming);
      signal.throwIfAborted();
      if (errorKind(error) !== 'invalid') throw error;
      await this.#target.refuse(error, this.#commit(id), signal);
      return 'refused';
    }
    return this.#load(id, signal);
  }

  async #load(id: string, signal: AbortSignal): Promise<'live' | 'refused'> {
    const root = this.#at(id);
    const commit = this.#commit(id);
    const files: ToolFiles = { root, directory: join(root, this.#options.path), commit };
    const status = await this.#target.load(files, signal);
    if (status === 'live') {
      this.#live = id;
      this.#remember(commit);
    }
    await this.#sweep();
    return status;
  }

  /** The commit with its message, as far as that is known. */
  #commit(id: string): Commit {
    const known = this.#arriving?.id === id ? this.#arriving : this.#history.get(id);
    return known ?? { id, subject: '' };
  }

  #remember(commit: Commit): void {
    this.#history.delete(commit.id);
    this.#history.set(commit.id, commit);
  }

  /** Lets go of all checkouts but those of the last live revisions. */
  async #sweep(): Promise<void> {
    const here = readdirSync(this.#options.directory);
    const kept = [...this.#history.keys()].filter((id) => here.includes(id)).slice(-MAX_CHECKOUTS);
    for (const name of here) if (!kept.includes(name)) await this.#remove(name);
  }

  #at(name: string): string {
    return join(this.#options.directory, name);
  }

  #isHere(id: string): boolean {
    return existsSync(this.#at(id));
  }

  #remove(name: string): Promise<void> {
    return rm(this.#at(name), { recursive: true, force: true });
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
    if (parsed.kind === 'tools') {
      if (parsed.status === 'live' && parsed.commit) this.#remember(parsed.commit);
    } else if (parsed.action === 'pin') this.#pinned = parsed.commit;
    else if (parsed.action === 'unpin') this.#pinned = null;
    return parsed.kind;
  }
}
