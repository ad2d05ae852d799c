/**
 * The named points at which the matrix kills. Each gives another kill for every round: the first, second, …
 * time that the point is reached, or another delay.
 */
import type { KillPlan } from './kill-plan.ts';
import type { Streams } from './crash-world.ts';

export type Kill =
  /** The daemon ends itself when the load gets there. */
  | { readonly by: 'plan'; readonly plan: KillPlan }
  /** It is killed under load, and then ends itself while it recovers. */
  | { readonly by: 'plan-while-starting'; readonly plan: KillPlan }
  /** It is told to stop under load, and ends itself on the way. */
  | { readonly by: 'plan-while-stopping'; readonly plan: KillPlan }
  /** It is killed while the n-th call of a tool is waiting for its answer. */
  | { readonly by: 'call-of-tool'; readonly nth: number }
  /** It is killed so long after the load began. */
  | { readonly by: 'time'; readonly delayMs: number }
  /** It is killed under load, and again so long after its start. */
  | { readonly by: 'time-while-starting'; readonly delayMs: number }
  /** The stream store is killed so long after the load began; the daemon lives on, or is killed too. */
  | { readonly by: 'store'; readonly delayMs: number; readonly withDaemon: boolean };

export interface KillPoint {
  readonly name: string;
  readonly stores: readonly Streams[];
  nextKill(round: number): Kill;
}

const BOTH: readonly Streams[] = ['local', 's2'];
/** With the load of the matrix, every append point is reached so often within a second. */
const DEEPEST_APPEND = 8;
/** Receive, one runner and outbox. */
const CHECKPOINTING_STAGES = 3;
/** Of a load, and of a start, which takes longer beside other worlds. */
const MAX_DELAY_MS = 1_500;
const MAX_START_MS = 3_000;
/** An append takes some milliseconds on both stores; a commit of the local one is a part of that. */
const MAX_DURING_MS = 4;

/** A delay that is another one in every round, and the same in every run. */
const delayOf = (round: number, maxMs = MAX_DELAY_MS): number => (round * 617) % maxMs;
/** Every place up to the deepest in as many rounds, and far ones among the first. */
const nthOf = (round: number, deepest: number): number => 1 + ((round * 13) % deepest);
const duringOf = (round: number): number => ((round * 7) % (MAX_DURING_MS * 10)) / 10;

const appends: [name: string, match: Pick<KillPlan, 'stream' | 'recordKind'>][] = [
  ['event', { stream: '^events$' }],
  ['raw mail', { stream: '^mail/' }],
  ['inbox record', { stream: '^inbox/' }],
  ['received outcome', { stream: '^received$', recordKind: 'outcome' }],
  ['outbox record', { stream: '^outbox$' }],
  ['run outcome', { stream: '^runs/', recordKind: 'outcome' }],
  ['sent attempt', { stream: '^sent$', recordKind: 'attempt' }],
  ['sent outcome', { stream: '^sent$', recordKind: 'outcome' }],
];

function planPoint(
  name: string,
  plan: Omit<KillPlan, 'nth' | 'delayMs'>,
  deepest = DEEPEST_APPEND,
): KillPoint {
  return {
    name,
    stores: BOTH,
    nextKill: (round) => ({
      by: 'plan',
      plan: { ...plan, nth: nthOf(round, deepest), delayMs: duringOf(round) },
    }),
  };
}

/** A checkpoint is one record, behind the one with the keys that it names. */
function checkpoints(store: Streams, killBy: (plan: KillPlan) => Kill): KillPoint[] {
  return (['before', 'after'] as const).map((when) => ({
    name: when === 'before' ? 'between keys and checkpoint' : 'after a checkpoint',
    stores: [store],
    nextKill: (round) =>
      killBy({ at: 'append', when, recordKind: 'checkpoint', nth: nthOf(round, CHECKPOINTING_STAGES) }),
  }));
}

export const killPoints: readonly KillPoint[] = [
  ...appends.flatMap(([name, match]) => [
    planPoint(`before ${name}`, { at: 'append', when: 'before', ...match }),
    planPoint(`after ${name}`, { at: 'append', when: 'after', ...match }),
  ]),
  planPoint('during an append', { at: 'append', when: 'during' }, 40),
  {
    name: 'during the tool',
    stores: BOTH,
    nextKill: (round) => ({ by: 'call-of-tool', nth: nthOf(round, 3) }),
  },
  planPoint('before the send', { at: 'send', when: 'before' }),
  planPoint('during the send', { at: 'send', when: 'during' }),
  planPoint('after the send', { at: 'send', when: 'after' }),
  // On `s2` a daemon whose clock runs fast trusts no lease: there only a stop brings a checkpoint soon enough.
  ...checkpoints('local', (plan) => ({ by: 'plan', plan })),
  ...checkpoints('s2', (plan) => ({ by: 'plan-while-stopping', plan })),
  ...(['before', 'after'] as const).map((when): KillPoint => ({
    name: `${when} taking over a journal`,
    stores: BOTH,
    nextKill: (round) => ({ by: 'plan-while-starting', plan: { at: 'fence', when, nth: nthOf(round, 4) } }),
  })),
  { name: 'at random', stores: BOTH, nextKill: (round) => ({ by: 'time', delayMs: delayOf(round) }) },
  {
    name: 'at random while starting',
    stores: BOTH,
    nextKill: (round) => ({ by: 'time-while-starting', delayMs: delayOf(round, MAX_START_MS) }),
  },
  {
    name: 'the stream store',
    stores: ['s2'],
    nextKill: (round) => ({ by: 'store', delayMs: delayOf(round), withDaemon: false }),
  },
  {
    name: 'daemon and stream store',
    stores: ['s2'],
    nextKill: (round) => ({ by: 'store', delayMs: delayOf(round), withDaemon: true }),
  },
];
