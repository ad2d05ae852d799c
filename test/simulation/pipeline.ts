/**
 * The three stages of the simulation in the shape of the real path: receive → runner (one for each inbox) →
 * outbox. The stage, the services that restart it and the outbox with all its options are the real ones; what a mail will
 * meet on its way (failures, a slow tool, a refusal) is written in the mail itself.
 */
import { outboxStage } from '../../src/outbox/outbox-unit.ts';
import { requestCausedAtMs } from '../../src/outbox/outbox.ts';
import { createSuppressions } from '../../src/outbox/suppressions.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createServices } from '../../src/platform/lifecycle.ts';
import type { Services } from '../../src/platform/lifecycle.ts';
import { createLog } from '../../src/platform/log.ts';
import { CAUSED_AT_HEADER, jsonRecord, streamNames } from '../../src/streams/records.ts';
import { createStage } from '../../src/streams/stage.ts';
import type { Outcome, Stage, StageLimits, StageOptions } from '../../src/streams/stage.ts';
import type { NewRecord, StreamRecord } from '../../src/streams/stream-store.ts';
import type { DaemonProcess } from './daemon-process.ts';
import type { DurableStreams } from './durable-streams.ts';
import type { Oracle } from './oracle.ts';
import { REJECTED_RECIPIENT } from './provider.ts';
import type { Provider } from './provider.ts';
import { createSimulatedStore } from './simulated-store.ts';

/** A mail, and what it is going to meet. */
export interface MailPlan {
  readonly mailId: string;
  readonly thread: string;
  readonly inbox: string;
  /** Transient failures before its content can be fetched. */
  readonly fetchFails: number;
  readonly isMalformed: boolean;
  /** Transient failures of its tool. */
  readonly toolFails: number;
  readonly toolMs: number;
  readonly tool: 'reply' | 'skip' | 'throw' | 'hang';
  /** The reply leaves so long after the run; null for at once. */
  readonly laterMs: number | null;
  readonly isRejected: boolean;
}

export const journalOf: Readonly<Record<string, string>> = {
  [streamNames.events]: streamNames.received,
  [streamNames.inbox('a')]: streamNames.runs('a'),
  [streamNames.inbox('b')]: streamNames.runs('b'),
  [streamNames.outbox]: streamNames.sent,
};
const TOOL_TIMEOUT_MS = 30_000;
export const CONCURRENCY = 3;
/** Small ones are met often; only time is not cut into as small pieces as in life. */
export const SMALL_LIMITS: StageLimits = {
  window: 8,
  windowBytes: 4_000,
  laneBodies: 2,
  laneBodyBytes: 400,
  outputBytes: 2_000,
  aside: 8,
  scheduled: 4,
  passedOver: 12,
  commitRecords: 4,
  checkpointOutcomes: 6,
  trimMs: 20_000,
  wakeMs: 86_400_000,
};

/** A twelfth of that in life, so that keys are forgotten within a simulation. What repeats a key is as much sooner. */
export const HORIZON_MS = 6 * 3_600_000;
/** Svix repeats for 28 hours. */
export const LAST_REPEAT_MS = (28 * 3_600_000) / 12;
/** As for half a day: who writes an output after that writes a key again. */
export const LONGEST_PAUSE_MS = 3_600_000;

/** What the stages of all daemons have in common. */
export interface Roles {
  /** How long journals are kept. */
  readonly historyMs: number;
  /** Until when a stage is away, by its source: it has no process, while the others go on. */
  readonly awayUntilMs: Map<string, number>;
}

export function mailRecord(plan: MailPlan): NewRecord {
  return jsonRecord({ kind: 'mail', version: 1, ...plan }, plan.mailId);
}

/** With when its cause came, as records of ours have it. */
function causedBy({ timestampMs }: StreamRecord, { headers = [], body }: NewRecord): NewRecord {
  return { headers: [...headers, [CAUSED_AT_HEADER, String(timestampMs)]], body };
}

function planOf(record: StreamRecord): MailPlan {
  return JSON.parse(Buffer.from(record.body).toString()) as MailPlan;
}

export interface Pipeline {
  readonly services: Services;
  /** The stages that run now, by the name of their source. */
  readonly stages: ReadonlyMap<string, Stage>;
}

export function createPipeline(
  daemon: DaemonProcess,
  far: { durable: DurableStreams; provider: Provider; oracle: Oracle; roles: Roles },
): Pipeline {
  const { clock, network } = daemon;
  const store = createSimulatedStore(far.durable, network);
  const log = createLog('silent');
  const stages = new Map<string, Stage>();
  // The provider here tells nothing of what became of its mail.
  const suppressions = createSuppressions({ store, clock, log }, { keptMs: Infinity });
  const outbox = outboxStage({ store, outbound: far.provider.outbound(network), suppressions, clock });

  function stageService(options: Pick<StageOptions, 'source' | 'handle'> & Partial<StageOptions>) {
    const { source } = options;
    return {
      name: source,
      async run(signal: AbortSignal): Promise<void> {
        const awayMs = (far.roles.awayUntilMs.get(source) ?? 0) - clock.nowMs();
        if (awayMs > 0) await clock.sleep(awayMs, signal).catch(() => {});
        if (signal.aborted) return;
        const stage = createStage(
          { store, clock, log },
          {
            name: source,
            journal: journalOf[source]!,
            concurrency: CONCURRENCY,
            backoff: { baseMs: 500, maxMs: 60_000 },
            maxAttempts: 10_000,
            limits: SMALL_LIMITS,
            horizonMs: HORIZON_MS,
            historyMs: far.roles.historyMs,
            causedAtMs: requestCausedAtMs,
            ...options,
            handle: (record, attempt) =>
              far.oracle.watchHandler(daemon, { source, record }, () => options.handle(record, attempt)),
          },
        );
        stages.set(source, stage);
        void far.oracle.watchRecovery(daemon, { source, stage });
        await stage.run(signal);
      },
    };
  }

  const runner = (inbox: string) =>
    stageService({
      source: streamNames.inbox(inbox),
      laneOf: (record) => planOf(record).thread,
      handle: (record, { number, signal }) => runTool(daemon, { record, number, signal }),
    });
  const services = createServices({ clock, log }, [
    stageService({
      source: streamNames.events,
      laneOf: (record) => planOf(record).thread,
      fairnessKeyOf: (record) => planOf(record).inbox,
      concurrencyPerKey: 2,
      handle: (record, { number, signal }) => receive(daemon, { record, number, signal }),
    }),
    runner('a'),
    runner('b'),
    stageService({ ...outbox, concurrency: CONCURRENCY }),
  ]);
  return { services, stages };
}

interface Call {
  record: StreamRecord;
  number: number;
  signal: AbortSignal;
}

async function receive(daemon: DaemonProcess, { record, number, signal }: Call): Promise<Outcome> {
  const plan = planOf(record);
  await daemon.network.request('fetch', () => null, signal);
  if (number <= plan.fetchFails) throw new MillraceError('transient', 'resend.content_missing', 'simulated');
  if (plan.isMalformed) throw new MillraceError('permanent', 'receive.malformed_event', 'simulated');
  return {
    kind: 'done',
    outputs: [{ stream: streamNames.inbox(plan.inbox), record: causedBy(record, mailRecord(plan)) }],
  };
}

async function runTool(daemon: DaemonProcess, { record, number, signal }: Call): Promise<Outcome> {
  const plan = planOf(record);
  const { clock } = daemon;
  await clock.sleep(plan.tool === 'hang' ? TOOL_TIMEOUT_MS : plan.toolMs, signal);
  if (number <= plan.toolFails) throw new MillraceError('transient', 'tool.transient', 'simulated');
  if (plan.tool === 'throw') throw new TypeError('simulated');
  if (plan.tool === 'hang') throw new MillraceError('permanent', 'tool.timeout', 'simulated');
  if (plan.tool === 'skip') return { kind: 'skipped', reason: 'tool.nothing' };
  const idempotencyKey = `${plan.inbox}/${record.seqNum}/0`;
  const request = {
    from: `${plan.inbox}@example.com`,
    to: plan.isRejected ? REJECTED_RECIPIENT : 'writer@example.com',
    subject: 'Re:',
    text: '',
    headers: {},
    tags: [{ name: 'cause', value: plan.mailId }],
  };
  const output = jsonRecord(
    {
      kind: 'request',
      version: 1,
      idempotencyKey,
      cause: { inbox: plan.inbox, seqNum: record.seqNum, effect: 0, emailId: plan.mailId },
      thread: plan.thread,
      notBefore: plan.laterMs === null ? null : new Date(clock.nowMs() + plan.laterMs).toISOString(),
      request,
    },
    idempotencyKey,
  );
  // Every other one keeps state: its outcome and its outputs must be one.
  const isAtomic = record.seqNum % 2 === 0;
  return {
    kind: 'done',
    outputs: [{ stream: streamNames.outbox, record: causedBy(record, output) }],
    isAtomic,
  };
}
