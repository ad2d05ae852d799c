/**
 * What an outcome is on record: the journal's `outcome`, and its outputs. Where these are more than a store takes in
 * one append, the record is a dead letter instead. Nothing is written here: `commits.ts`.
 */
import { MillraceError, errorMessage } from '../../platform/errors.ts';
import type { OutcomeRecord } from '../journal-records.ts';
import { limits, meteredBytes } from '../stream-store.ts';
import type { NewRecord } from '../stream-store.ts';
import { asideOf } from './entry.ts';
import type { Entry } from './entry.ts';
import { factsThatFit } from './facts.ts';
import type { Outcome } from './handler.ts';
import { intentOf } from './output-appender.ts';
import type { Output } from './output-appender.ts';

const MAX_MESSAGE_CHARS = 4000;

export interface Decision {
  readonly outputs: readonly Output[];
  /** Without where the outputs stand: that is known when they do. */
  readonly outcome: OutcomeRecord;
  /** Where outputs and outcome must be one. */
  readonly intent: NewRecord | undefined;
}

export function decisionOf(
  entry: Entry,
  outcome: Outcome,
  times: { nowMs: number; durationMs: number },
): Decision {
  const { outputs = [], isAtomic = false } =
    outcome.kind === 'done' || outcome.kind === 'skipped' ? outcome : {};
  const record = outcomeRecord(entry, outcome, times);
  const intent = isAtomic ? intentOf(record, outputs) : undefined;
  const oversized = outputs.find((output) => meteredBytes(output.record) > limits.batchBytes)?.stream;
  if (oversized === undefined && (!intent || meteredBytes(intent) <= limits.batchBytes))
    return { outputs, outcome: record, intent };
  const what = oversized === undefined ? 'what a record decides' : `an output for ${oversized}`;
  const error = new MillraceError('permanent', 'stage.output_too_large', `${what} exceeds 1 MiB`);
  return decisionOf(entry, { kind: 'dead-letter', reason: error.code, error }, times);
}

function outcomeRecord(
  entry: Entry,
  outcome: Outcome,
  { nowMs, durationMs }: { nowMs: number; durationMs: number },
): OutcomeRecord {
  const facts = outcome.kind === 'deferred' ? {} : (outcome.facts ?? {});
  const isDuplicate = outcome.kind === 'skipped' && outcome.reason === 'duplicate';
  const base = {
    kind: 'outcome' as const,
    version: 1 as const,
    seqNum: entry.seqNum,
    key: entry.key,
    outcome: isDuplicate ? ('duplicate' as const) : outcome.kind,
    attempts: entry.attempts,
    reason: outcome.kind === 'done' ? null : outcome.reason,
    error: outcome.kind === 'dead-letter' ? describeError(outcome.error) : null,
    at: new Date(nowMs).toISOString(),
    durationMs: Math.round(durationMs * 10) / 10,
    facts: factsThatFit(facts),
  };
  if (outcome.kind !== 'deferred') return base;
  const { untilMs, holdsLane } = outcome;
  // A scheduled deferral is no failure: it does not count as an attempt.
  const attempts = holdsLane ? entry.attempts : entry.attempts - 1;
  const deferral = holdsLane ? { untilMs, holdsLane, waitMs: untilMs - nowMs } : { untilMs, holdsLane };
  return { ...base, attempts, aside: asideOf({ ...entry, attempts }, deferral) };
}

function describeError(error: unknown): OutcomeRecord['error'] {
  if (error === undefined) return null;
  const hint = error instanceof MillraceError ? (error.hint ?? null) : null;
  return {
    code: error instanceof MillraceError ? error.code : 'stage.exception',
    message: errorMessage(error).slice(0, MAX_MESSAGE_CHARS),
    hint,
  };
}
