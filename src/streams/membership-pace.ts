/**
 * The numbers of membership, and how they follow the store: where it is slow, a process is believed for longer, or it
 * could not come back in time however well it is.
 *
 * A round trip is the time from sending a heartbeat until it is read back, and the slower of the last two counts. What
 * it exceeds the usual by is added to the lease twice: the next heartbeat is sent when the store has taken this one,
 * and has to come back itself. A heartbeat states the lease that its sender counts on, and the others wait for it, so
 * that nobody judges by a patience that the judged one does not know.
 */

/** In milliseconds, and why they are these. */
export const membershipTiming = {
  /** One small append a second and process: cheap on S2, and a fifth of the patience below. */
  heartbeatMs: 1_000,
  /**
   * How long a process trusts what it knows after it sent the heartbeat that it last read back. A busy
   * machine may hold the event loop for a second or two, and a heartbeat takes up to a second to be due.
   */
  leaseMs: 3_000,
  /**
   * How long the others wait for a silent process. Longer than its own lease and a heartbeat together, so that
   * it knows before they do, also where clocks run differently fast.
   */
  deadAfterMs: 5_000,
  /** A heartbeat that takes longer is given up: the next one may find a better connection. */
  appendTimeoutMs: 2_000,
  /** The same where the last one was given up, or the store is slow. */
  slowAppendTimeoutMs: 5_000,
  /** A round trip of S2 at its usual: one of its standard storage takes 0.4 s to be acknowledged. */
  usualRoundTripMs: 500,
  /** With slower ones a process is blind: the others would wait too long for one that has ended. */
  maxRoundTripMs: 10_000,
  /** What changes within this time is told in one heartbeat. */
  gatherMs: 25,
  /** At the end: so long for what is held to be let go. A stage lets its handlers go on for 8 s. */
  leaveWithinMs: 10_000,
} as const;

const { leaseMs, deadAfterMs, usualRoundTripMs, maxRoundTripMs } = membershipTiming;

/** The longest lease that there is, whatever a heartbeat states. */
export const maxLeaseMs = leaseMs + 2 * (maxRoundTripMs - usualRoundTripMs);

/** How long the others wait for who has stated this lease. */
export const patienceMs = (lease: number): number => lease + deadAfterMs - leaseMs;

export interface Pace {
  /** A heartbeat came back after so long, or was given up. */
  note(roundTripMs: number): void;
  /** What the next heartbeat states. */
  leaseMs(): number;
  appendTimeoutMs(): number;
  /** After so long without one's own heartbeat, the connection that reads is taken for dead and opened anew. */
  rereadAfterMs(): number;
}

export function createPace(): Pace {
  let [last, before] = [0, 0];
  const slowMs = (): number =>
    Math.max(0, Math.min(Math.max(last, before), maxRoundTripMs) - usualRoundTripMs);
  const lease = (): number => leaseMs + 2 * slowMs();
  return {
    note(roundTripMs) {
      [last, before] = [roundTripMs, last];
    },
    leaseMs: lease,
    appendTimeoutMs: () =>
      Math.min(membershipTiming.appendTimeoutMs + 2 * slowMs(), membershipTiming.slowAppendTimeoutMs),
    rereadAfterMs: () => lease() - 500,
  };
}
