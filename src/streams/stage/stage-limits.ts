/** How much a stage has in hand at once, and how often it writes down where it stands. */

/** Limits that a simulation makes small, so that it meets them often. */
export interface StageLimits {
  /** Records in memory, beyond which the reader pauses. */
  readonly window: number;
  /** Bytes of their bodies, beyond which it pauses, too. */
  readonly windowBytes: number;
  /** Waiting records of one lane that keep their body in memory. */
  readonly laneBodies: number;
  /** A body above this does not wait in memory for its lane. */
  readonly laneBodyBytes: number;
  /** Outputs that are not durable yet, beyond which no handler is started. */
  readonly outputBytes: number;
  /** Records set aside, beyond which the reader pauses. */
  readonly aside: number;
  /** Of these, records that wait for a time that somebody named; keys share it, and what is beyond is a dead letter. */
  readonly scheduled: number;
  /** Records passed over because their fairness key has its share of memory, beyond which it pauses. */
  readonly passedOver: number;
  /** Journal records in one append. */
  readonly commitRecords: number;
  /** Outcomes between two checkpoints. */
  readonly checkpointOutcomes: number;
  /** Between two trims of old history. */
  readonly trimMs: number;
  /** A due time is by the wall clock, which can jump forward: so it is looked at so often. */
  readonly wakeMs: number;
}

export const defaultLimits: StageLimits = {
  window: 512,
  windowBytes: 16 * 1024 * 1024,
  laneBodies: 16,
  laneBodyBytes: 64 * 1024,
  outputBytes: 16 * 1024 * 1024,
  aside: 200_000,
  scheduled: 100_000,
  passedOver: 1_000_000,
  commitRecords: 400,
  checkpointOutcomes: 500,
  trimMs: 600_000,
  wakeMs: 60_000,
};
