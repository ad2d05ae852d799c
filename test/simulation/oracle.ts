/**
 * Who watches a simulation: it sees every record that becomes durable, every call of a handler and every mail
 * that leaves, and says at once what must not be. It knows what the stage promises, not how it is made.
 *
 * - A record has one final outcome; a key is settled as done once; a mail leaves once.
 * - Within a lane, from the webhook's event on, a record is handled when all before it are settled, unless they were
 *   scheduled for later.
 * - The `low` of a journal's checkpoints never goes back, and what follows the newest one is bounded: so is
 *   what a recovery reads.
 * - Nothing grows without bound: a checkpoint names nothing that is settled, nor keys beyond the horizon, and a stage
 *   holds no more than its limits, and what its newest checkpoint and the records behind it name.
 * - At the end every mail has the outcome that its plan says.
 */
import type { CheckpointPart, OutcomeRecord } from '../../src/streams/journal-records.ts';
import { KEY_HEADER, headerOf, streamNames } from '../../src/streams/records.ts';
import type { Stage } from '../../src/streams/stage.ts';
import type { StreamRecord } from '../../src/streams/stream-store.ts';
import type { DaemonProcess } from './daemon-process.ts';
import { CONCURRENCY, HORIZON_MS, SMALL_LIMITS, journalOf } from './pipeline.ts';
import type { MailPlan } from './pipeline.ts';
import type { World } from './world.ts';

export interface Oracle {
  /** What must not be, and was seen. */
  readonly faults: readonly string[];
  fault(what: string): void;
  expectMail(plan: MailPlan): void;
  observe(stream: string, records: readonly StreamRecord[]): void;
  observeRead(daemon: DaemonProcess, stream: string, records: number): void;
  mailLeft(mailId: string): void;
  watchHandler<T>(
    daemon: DaemonProcess,
    what: { source: string; record: StreamRecord },
    handle: () => Promise<T>,
  ): Promise<T>;
  /** Resolves when the stage has recovered; a crash may come before. */
  watchRecovery(daemon: DaemonProcess, what: { source: string; stage: Stage }): Promise<void>;
  /** Looks at the memory of a stage; without `isAlone` another process may have its journal meanwhile. */
  watchMemory(stage: Stage, of: { source: string; isAlone: boolean }): void;
  /** Every mail has its outcome. */
  isSettled(): boolean;
  /** The outcome of every mail is the one that its plan says. */
  judge(): void;
}

interface SourceFacts {
  readonly keyOf: Map<number, string>;
  readonly laneOf: Map<number, string>;
  /** Numbers of a lane in order, without second copies of a key. */
  readonly lanes: Map<string, number[]>;
  readonly firstOfKey: Map<string, number>;
}

interface JournalFacts {
  readonly final: Map<number, OutcomeRecord>;
  readonly finalOfKey: Map<string, OutcomeRecord>;
  /** What was decided about a record: nothing else may become of it. */
  readonly intents: Map<number, string>;
  /** Scheduled for later: they gave up their place in the lane. */
  readonly scheduled: Set<number>;
  /** Of `final`, the numbers that the newest checkpoint's `low` has not passed. */
  readonly settledAhead: Set<number>;
  low: number;
  sinceCheckpoint: number;
  checkpointParts: number;
  /** Keys that the newest checkpoint names, and those settled since. */
  keys: number;
  runningMs: number;
}

/** Outcomes and attempts of all that can be under way while a checkpoint is due, several times over. */
const MAX_SINCE_CHECKPOINT = 10 * (SMALL_LIMITS.checkpointOutcomes + SMALL_LIMITS.window + CONCURRENCY);
const MAX_WAITERS = 12;
/** All that may be set aside, with names of a dozen characters, and some dozens of key segments. */
const MAX_CHECKPOINT_BYTES = 16 * 1024;
/** Handlers that run when the limit is reached may end. */
const MAX_OUTPUT_BYTES = SMALL_LIMITS.outputBytes + CONCURRENCY * 1_000;
/** A stage remembers keys a second longer than its checkpoint names them. */
const KEYS_SLACK = 4;
/** All that is in memory may be set aside after the reader began to pause. */
const MAX_ASIDE = SMALL_LIMITS.aside + SMALL_LIMITS.window + CONCURRENCY + SMALL_LIMITS.passedOver;
/** What becomes of a request for later where too many wait. */
const TOO_MANY_SCHEDULED = 'stage.too_many_scheduled';

export function createOracle(world: World): Oracle {
  const faults: string[] = [];
  const sources = new Map<string, SourceFacts>();
  const journals = new Map<string, JournalFacts>();
  const plans = new Map<string, MailPlan>();
  const left = new Map<string, number>();
  /** Mail → keys of the requests that were frozen for it. */
  const requests = new Map<string, Set<string>>();
  const busyLanes = new WeakMap<DaemonProcess, Map<string, number>>();
  const recordsRead = new WeakMap<DaemonProcess, Map<string, number>>();

  function fault(what: string): void {
    world.trace(`FAULT ${what}`);
    faults.push(what);
  }

  const factsOfSource = (stream: string): SourceFacts =>
    orMake(sources, stream, () => ({
      keyOf: new Map(),
      laneOf: new Map(),
      lanes: new Map(),
      firstOfKey: new Map(),
    }));
  const factsOfJournal = (stream: string): JournalFacts =>
    orMake(journals, stream, () => ({
      final: new Map(),
      finalOfKey: new Map(),
      intents: new Map(),
      scheduled: new Set(),
      settledAhead: new Set(),
      low: 0,
      sinceCheckpoint: 0,
      checkpointParts: 1,
      keys: 0,
      runningMs: 0,
    }));

  function observeSource(stream: string, record: StreamRecord): void {
    const facts = factsOfSource(stream);
    const key = headerOf(record, KEY_HEADER) ?? '';
    const body = JSON.parse(Buffer.from(record.body).toString()) as {
      thread: string;
      cause?: { emailId: string };
    };
    facts.keyOf.set(record.seqNum, key);
    if (body.cause) orMake(requests, body.cause.emailId, () => new Set()).add(key);
    if (facts.firstOfKey.has(key)) return;
    facts.firstOfKey.set(key, record.seqNum);
    facts.laneOf.set(record.seqNum, body.thread);
    orMake(facts.lanes, body.thread, () => []).push(record.seqNum);
  }

  /** All that stands before this record in its lane must be settled. */
  function checkOrder(source: string, seqNum: number, what: string): void {
    const facts = factsOfSource(source);
    const journal = factsOfJournal(journalOf[source]!);
    const lane = facts.laneOf.get(seqNum);
    if (lane === undefined || journal.scheduled.has(seqNum)) return;
    for (const earlier of facts.lanes.get(lane) ?? []) {
      if (earlier >= seqNum) return;
      if (!journal.final.has(earlier) && !journal.scheduled.has(earlier))
        fault(`order: ${source}#${seqNum} ${what} before #${earlier} of its lane is settled`);
    }
  }

  function observeOutcome(source: string, journal: JournalFacts, outcome: OutcomeRecord): void {
    const { seqNum, key } = outcome;
    if (factsOfSource(source).keyOf.get(seqNum) !== key) fault(`${source}#${seqNum} has another key`);
    if (journal.final.has(seqNum)) fault(`${source}#${seqNum} has two outcomes`);
    const decided = journal.intents.get(seqNum) ?? outcome.outcome;
    if (decided !== outcome.outcome) fault(`${source}#${seqNum} is ${outcome.outcome}, not ${decided}`);
    if (outcome.outcome === 'deferred') {
      if (outcome.aside?.holdsLane === false) journal.scheduled.add(seqNum);
      return;
    }
    if (outcome.reason === TOO_MANY_SCHEDULED && journal.scheduled.has(seqNum))
      fault(`${source}#${seqNum} had its place among what is scheduled, and lost it`);
    if (outcome.outcome !== 'duplicate') {
      checkOrder(source, seqNum, 'is settled');
      if (journal.finalOfKey.has(key)) fault(`${source}: key ${key} is settled twice`);
      journal.finalOfKey.set(key, outcome);
      journal.keys++;
    }
    journal.final.set(seqNum, outcome);
    journal.settledAhead.add(seqNum);
  }

  function observeJournal(source: string, name: string, record: StreamRecord): void {
    const journal = factsOfJournal(name);
    const body = JSON.parse(Buffer.from(record.body).toString()) as
      | OutcomeRecord
      | { kind: 'attempt' | 'keys' }
      | { kind: 'intent'; outcome: OutcomeRecord }
      | CheckpointPart;
    world.trace(
      `${name}#${record.seqNum} ${body.kind}${body.kind === 'outcome' ? ` ${body.seqNum} ${body.outcome}` : ''}`,
    );
    journal.sinceCheckpoint++;
    if (body.kind === 'outcome') observeOutcome(source, journal, body);
    if (body.kind === 'intent') {
      const { seqNum, outcome } = body.outcome;
      if (journal.intents.has(seqNum)) fault(`${source}#${seqNum} is decided twice`);
      journal.intents.set(seqNum, outcome);
    }
    if (body.kind !== 'checkpoint') return;
    checkPart(name, journal, body, record.body.length);
    // Until its last part is there, it is none.
    if (body.part === body.parts - 1) observeCheckpoint(name, journal, body);
  }

  /** It names what is needed, and no more. */
  function checkPart(name: string, journal: JournalFacts, part: CheckpointPart, bytes: number): void {
    if (bytes > MAX_CHECKPOINT_BYTES) fault(`${name}: a checkpoint of ${bytes} bytes`);
    const named = [...part.doubts.map(([seqNum]) => seqNum), ...part.aside.map(({ seqNum }) => seqNum)];
    for (const seqNum of named)
      if (journal.final.has(seqNum)) fault(`${name}: a checkpoint names #${seqNum}, which is settled`);
    const oldestMs = part.runningMs - HORIZON_MS;
    if (part.keySegments.some(({ newestMs }) => newestMs < oldestMs))
      fault(`${name}: a checkpoint names keys beyond the horizon`);
    if (part.runningMs < journal.runningMs)
      fault(`${name}: its running time went back from ${journal.runningMs} to ${part.runningMs}`);
    journal.runningMs = part.runningMs;
    if (part.part === 0) journal.keys = part.keySegments.reduce((sum, { count }) => sum + count, 0);
  }

  function observeCheckpoint(name: string, journal: JournalFacts, { low, parts }: CheckpointPart): void {
    if (low < journal.low) fault(`${name}: low went back from ${journal.low} to ${low}`);
    journal.low = low;
    for (const seqNum of journal.settledAhead) if (seqNum < low) journal.settledAhead.delete(seqNum);
    if (journal.sinceCheckpoint > MAX_SINCE_CHECKPOINT + parts)
      fault(`${name}: ${journal.sinceCheckpoint} records without a checkpoint`);
    journal.sinceCheckpoint = 0;
    journal.checkpointParts = parts;
  }

  function outcomeOf(plan: MailPlan): string | null {
    const received = factsOfJournal(streamNames.received).finalOfKey.get(plan.mailId);
    if (received?.outcome !== 'done') return received ? `receive ${received.outcome}` : null;
    const run = factsOfJournal(streamNames.runs(plan.inbox)).finalOfKey.get(plan.mailId);
    if (run?.outcome !== 'done') return run ? `runner ${run.outcome}` : null;
    const keys = [...(requests.get(plan.mailId) ?? [])];
    const sent = keys.map((key) => factsOfJournal(streamNames.sent).finalOfKey.get(key));
    if (sent.length !== 1) return `outbox with ${sent.length} requests`;
    if (plan.laterMs !== null && sent[0]?.reason === TOO_MANY_SCHEDULED) return 'outbox full';
    return sent[0] ? `outbox ${sent[0].outcome}` : null;
  }

  return {
    faults,
    fault,
    expectMail: (plan) => plans.set(plan.mailId, plan),
    observe(stream, records) {
      const source = Object.keys(journalOf).find((name) => journalOf[name] === stream);
      for (const record of records) {
        if (source !== undefined) observeJournal(source, stream, record);
        else observeSource(stream, record);
      }
    },
    observeRead(daemon, stream, records) {
      const read = orMake(recordsRead, daemon, () => new Map<string, number>());
      read.set(stream, (read.get(stream) ?? 0) + records);
    },
    mailLeft(mailId) {
      left.set(mailId, (left.get(mailId) ?? 0) + 1);
      if (left.get(mailId)! > 1) fault(`mail ${mailId} is answered twice`);
    },
    async watchHandler(daemon, { source, record }, handle) {
      const { seqNum } = record;
      world.trace(`${daemon.name} handles ${source}#${seqNum}`);
      checkOrder(source, seqNum, 'is handled');
      const busy = orMake(busyLanes, daemon, () => new Map<string, number>());
      const laneName = factsOfSource(source).laneOf.get(seqNum);
      const lane = `${source} ${laneName ?? `#${seqNum}`}`;
      if (busy.has(lane)) fault(`${source}#${seqNum} is handled while #${busy.get(lane)} of its lane is`);
      busy.set(lane, seqNum);
      try {
        return await handle();
      } finally {
        busy.delete(lane);
      }
    },
    async watchRecovery(daemon, { source, stage }) {
      const name = journalOf[source]!;
      const before = recordsRead.get(daemon)?.get(name) ?? 0;
      await stage.ready;
      const read = (recordsRead.get(daemon)?.get(name) ?? 0) - before;
      const bound = 8 * (MAX_SINCE_CHECKPOINT + factsOfJournal(name).checkpointParts) + 100;
      if (read > bound) fault(`${name}: a recovery read ${read} records`);
    },
    watchMemory(stage, { source, isAlone }) {
      const { inMemory, aside, waiters, settledKeys, settledAhead, outputBytes } = stage.stats();
      if (inMemory > SMALL_LIMITS.window + CONCURRENCY) fault(`${inMemory} records in memory`);
      if (aside > MAX_ASIDE) fault(`${aside} records aside`);
      if (waiters > MAX_WAITERS) fault(`${waiters} waiters`);
      if (outputBytes > MAX_OUTPUT_BYTES) fault(`${outputBytes} bytes of outputs in memory`);
      if (!isAlone) return;
      const journal = factsOfJournal(journalOf[source]!);
      if (settledAhead > journal.settledAhead.size)
        fault(
          `${source}: ${settledAhead} settled numbers in memory, of ${journal.settledAhead.size} not passed`,
        );
      if (settledKeys > journal.keys + KEYS_SLACK)
        fault(`${source}: ${settledKeys} settled keys in memory, of ${journal.keys} on the journal`);
    },
    isSettled: () => [...plans.values()].every((plan) => outcomeOf(plan) !== null),
    judge() {
      // What was left undone after a fault is no news.
      if (faults.length > 0) return;
      for (const plan of plans.values()) {
        const outcome = outcomeOf(plan);
        const [expected, answers] = outcome === 'outbox full' ? [outcome, 0] : expectationOf(plan);
        if (outcome !== expected) fault(`mail ${plan.mailId}: ${outcome}, not ${expected}`);
        if ((left.get(plan.mailId) ?? 0) !== answers)
          fault(`mail ${plan.mailId} was answered ${left.get(plan.mailId) ?? 0} times, not ${answers}`);
      }
    },
  };
}

/** The outcome, and how many mails leave. */
function expectationOf(plan: MailPlan): [outcome: string, answers: number] {
  if (plan.isMalformed) return ['receive dead-letter', 0];
  if (plan.tool === 'skip') return ['runner skipped', 0];
  if (plan.tool !== 'reply') return ['runner dead-letter', 0];
  return plan.isRejected ? ['outbox dead-letter', 0] : ['outbox done', 1];
}

function orMake<K, V>(
  map: { get(key: K): V | undefined; set(key: K, value: V): unknown },
  key: K,
  make: () => V,
): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
