/**
 * Kills in one world, one after another: load, kill, restart, until everything that was accepted is answered;
 * at the end, the count at the far end and on the streams.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { outcomeSchema } from '../../src/streams/journal-records.ts';
import type { OutcomeRecord } from '../../src/streams/journal-records.ts';
import { outboxRecordSchema, parseJsonRecord } from '../../src/streams/records.ts';
import type { StreamRecord, StreamStore } from '../../src/streams/stream-store.ts';
import type { AcceptedMail } from '../resend-stand-in/contract.ts';
import { createCrashWorld } from './crash-world.ts';
import type { CrashWorld, CrashingDaemon, Streams } from './crash-world.ts';
import type { DaemonProgram } from './daemon-bundle.ts';
import type { KillPlan } from './kill-plan.ts';
import type { Kill, KillPoint } from './kill-points.ts';
import { startMailLoad } from './mail-load.ts';
import { tallyOf, textOf } from './tally.ts';
import type { OnRecord, SentMail, Tally } from './tally.ts';

/** From the restart of what was killed. */
export interface Recovery {
  readonly firstAnswerMs: number;
  readonly settledMs: number;
}

export interface MatrixRun {
  /** One kill at this point, and the recovery from it. */
  kill(point: KillPoint, round: number): Promise<Recovery>;
  /** Stops, starts and stops the daemon once more, and counts: by name of the point. */
  count(): Promise<Map<string, Tally>>;
  stop(): Promise<void>;
}

/** Mails that were never answered, with all there is to know about them. */
export class UnansweredError extends Error {
  readonly count: number;

  constructor(count: number, message: string) {
    super(message);
    this.count = count;
  }
}

/** Checkpoints are due every 30 s; at this rate they come every second and a half. On `s2` the leases need a true clock. */
const CLOCK_RATES: Record<Streams, number> = { local: 20, s2: 1 };
/** In the middle of the first mails. */
const UNDER_LOAD_MS = 150;
const STRIKE_TIMEOUT_MS = 60_000;
const SETTLE_TIMEOUT_MS = 120_000;
/** So soon it is noticed that the daemon is gone, or that an answer came twice. */
const SETTLE_CHECK_MS = 2_000;

export async function startMatrixRun(streams: Streams, program: DaemonProgram): Promise<MatrixRun> {
  const world = await createCrashWorld(streams, program);
  const mailsByPoint = new Map<string, SentMail[]>();
  let daemon: CrashingDaemon;
  const restart = (kill?: KillPlan): void => {
    daemon = world.start({ clockRate: CLOCK_RATES[streams], ...(kill && { kill }) });
  };
  restart();

  async function strike(kill: Kill): Promise<void> {
    switch (kill.by) {
      case 'plan':
        daemon.arm(kill.plan);
        return executed(kill);
      case 'plan-while-starting':
        await killUnderLoad();
        restart(kill.plan);
        return executed(kill);
      case 'plan-while-stopping':
        await world.resend.waitForAccepted((await world.resend.accepted()).length + 1, STRIKE_TIMEOUT_MS);
        daemon.arm(kill.plan);
        void daemon.stop();
        return executed(kill);
      case 'call-of-tool':
        await within(
          STRIKE_TIMEOUT_MS,
          world.calls.hold(kill.nth),
          () => `no tool was run\n${daemon.output()}`,
        );
        await killFromOutside();
        return world.calls.release();
      case 'time':
        await pause(kill.delayMs);
        return killFromOutside();
      case 'time-while-starting':
        await killUnderLoad();
        restart();
        await pause(kill.delayMs);
        return killFromOutside();
      case 'store':
        await pause(kill.delayMs);
        await Promise.all([world.killStore(), kill.withDaemon ? killFromOutside() : undefined]);
    }
  }

  async function killUnderLoad(): Promise<void> {
    await pause(UNDER_LOAD_MS);
    await killFromOutside();
  }

  async function killFromOutside(): Promise<void> {
    await daemon.kill();
    if (!daemon.wasKilled()) throw new Error(`the daemon ended by itself\n${daemon.output()}`);
  }

  /** Resolves when the daemon has come to what was planned for it. */
  async function executed(kill: Kill): Promise<void> {
    const failure = (): string => `never reached ${JSON.stringify(kill)}\n${daemon.output()}`;
    await within(STRIKE_TIMEOUT_MS, daemon.gone, failure);
    if (!daemon.wasKilled()) throw new Error(failure());
  }

  async function settled(mails: readonly SentMail[]): Promise<void> {
    const owed = new Set(mails.filter(({ isOwedAnswer }) => isOwedAnswer).map(({ id }) => id));
    let replies = await world.resend.accepted();
    const deadlineMs = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const answered = new Set(replies.map(textOf));
      const open = [...owed].filter((id) => !answered.has(id));
      if (open.length === 0) return;
      if (performance.now() > deadlineMs || daemon.isGone()) throw await unsettled(mails, open);
      replies = await world.resend
        .waitForAccepted(replies.length + open.length, SETTLE_CHECK_MS)
        .catch(() => world.resend.accepted());
    }
  }

  /** What there is to know about mails that stay without an answer. */
  async function unsettled(mails: readonly SentMail[], open: readonly string[]): Promise<UnansweredError> {
    const { reasons, faults } = await readOutcomes(world);
    const stories = mails
      .filter(({ id }) => open.includes(id))
      .map(({ id, emailId }) => `${id} (${emailId}): ${reasons.get(emailId) ?? 'no reason on record'}`);
    return new UnansweredError(
      open.length,
      ['not answered:', ...stories, ...faults, daemon.output()].join('\n'),
    );
  }

  return {
    async kill(point, round) {
      const kill = point.nextKill(round);
      const mails = mailsByPoint.get(point.name) ?? [];
      mailsByPoint.set(point.name, mails);
      const label = `${point.name.replaceAll(' ', '-')}-${round}`;
      const load = startMailLoad(world.resend, {
        label,
        inbox: kill.by === 'call-of-tool' ? 'held' : 'echo',
      });
      await strike(kill);
      const startMs = performance.now();
      const since = (): number => performance.now() - startMs;
      const before = (await world.resend.accepted()).length;
      if (kill.by === 'store') await world.startStore();
      if (daemon.wasKilled()) restart();
      const firstAnswer = world.resend.waitForAccepted(before + 1, SETTLE_TIMEOUT_MS).then(since);
      // Whether there ever is one shows below.
      firstAnswer.catch(() => {});
      await load.end();
      mails.push(...load.mails);
      await settled(load.mails);
      return { firstAnswerMs: await firstAnswer, settledMs: since() };
    },
    async count() {
      const restless = startMailLoad(world.resend, { label: 'last', inbox: 'echo' });
      const codes = [await daemon.stop()];
      restart();
      await restless.end();
      await settled(restless.mails);
      codes.push(await daemon.stop());
      const { reasons, places, faults } = await readOutcomes(world);
      if (codes.some((code) => code !== 0))
        faults.push(`stopped with ${codes.join(' and ')}: ${daemon.output()}`);
      const replies = await world.resend.accepted();
      return talliesOf(new Map([...mailsByPoint, ['the end', [...restless.mails]]]), {
        replies,
        reasons,
        places,
        faults,
      });
    },
    stop: () => world.stop(),
  };
}

function talliesOf(
  mailsByPoint: ReadonlyMap<string, readonly SentMail[]>,
  seen: OnRecord & { replies: readonly AcceptedMail[]; faults: string[] },
): Map<string, Tally> {
  const tallies = new Map(
    [...mailsByPoint].map(([name, mails]) => [name, tallyOf(mails, seen.replies, seen)]),
  );
  const known = new Set([...mailsByPoint.values()].flatMap((mails) => mails.map(({ id }) => id)));
  const strays = seen.replies.filter((reply) => !known.has(textOf(reply)));
  const end = tallies.get('the end')!;
  end.faults.push(
    ...seen.faults,
    ...strays.map((reply) => `a reply to nothing: ${JSON.stringify(reply.payload)}`),
  );
  return tallies;
}

/** Why mails were not answered, by email id; and what should not be on the journals. */
async function readOutcomes(world: CrashWorld): Promise<OnRecord & { faults: string[] }> {
  const store = await world.openStreams();
  const reasons = new Map<string, string>();
  const places = new Map<string, number>();
  const faults: string[] = [];
  try {
    const { names } = await store.list({ prefix: 'inbox/' });
    const inboxes = names.map((name) => name.slice('inbox/'.length));
    const stages = [
      ['events', 'received'],
      ...inboxes.map((inbox) => [`inbox/${inbox}`, `runs/${inbox}`]),
      ['outbox', 'sent'],
    ] as [string, string][];
    for (const [source, journal] of stages) {
      const outcomes = (await recordsOf(store, journal)).flatMap(outcomeOf);
      const final = new Set(
        outcomes.filter(({ outcome }) => outcome !== 'deferred').map(({ seqNum }) => seqNum),
      );
      for (const { seqNum } of await recordsOf(store, source))
        if (!final.has(seqNum)) faults.push(`record ${seqNum} of ${source} has no final outcome`);
      for (const { outcome, reason, facts, seqNum, error } of outcomes) {
        if (outcome === 'dead-letter')
          faults.push(`record ${seqNum} of ${source} is parked: ${error?.message}`);
        if (outcome === 'skipped') reasons.set(String(facts['emailId']), String(reason));
      }
    }
    for (const record of await recordsOf(store, 'outbox')) {
      const { idempotencyKey, cause } = parseJsonRecord(outboxRecordSchema, record);
      places.set(idempotencyKey, cause.seqNum);
    }
  } finally {
    await store.close();
  }
  return { reasons, places, faults };
}

async function recordsOf(store: StreamStore, name: string): Promise<StreamRecord[]> {
  const records: StreamRecord[] = [];
  for (let from = 0; ;) {
    const batch = await store.stream(name).read({ fromSeqNum: from });
    records.push(...batch.records);
    if (batch.nextSeqNum === from) return records;
    from = batch.nextSeqNum;
  }
}

function outcomeOf({ body }: StreamRecord): OutcomeRecord[] {
  const parsed = outcomeSchema.safeParse(JSON.parse(Buffer.from(body).toString('utf8')));
  return parsed.success ? [parsed.data] : [];
}

async function within(timeoutMs: number, event: Promise<void>, failure: () => string): Promise<void> {
  const stop = new AbortController();
  const timeout = pause(timeoutMs, undefined, { signal: stop.signal }).then(() => {
    throw new Error(failure());
  });
  timeout.catch(() => {});
  await Promise.race([event, timeout]);
  stop.abort();
}
