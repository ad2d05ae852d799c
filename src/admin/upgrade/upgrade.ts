/**
 * Switching the release that runs: `millrace upgrade` and `millrace rollback`. The steps, and what a break at each of
 * them leaves behind:
 *
 *  1. fetch, check out beside, install packages    a `.staging-` folder, which the next run removes
 *  2. ask the other release whether it would work  nothing: it only reads
 *  3. note from where to where (`switching.json`)  `current` as it was
 *  4. point `current` there                        the units go on with what they have; a restart of theirs brings the new one
 *  5. restart, one unit after another              units of both releases, which the streams' format allows
 *  6. watch until all is well for a while          the new release, not confirmed
 *  7. `previous` to where we came from, `left` to what was gone back from, forget the note, remove the oldest
 *
 * Whatever fails from 4 to 6 is switched back by the code that runs here, which is that of the release before; the
 * new one need not even start. A run that was killed there is found by its note, and settled by the next one:
 * confirmed where all is well, otherwise switched back.
 */
import type { Clock } from '../../platform/clock.ts';
import { MillraceError, errorMessage } from '../../platform/errors.ts';
import type { Preflight } from './preflight.ts';
import type { Releases, Switching } from './releases.ts';
import type { Direction, Units } from './units.ts';

export interface UpgradeDeps {
  releases: Releases;
  units: Units;
  /** Asks a release, in its folder, as the daemon's own user. */
  preflight: (releaseFolder: string, signal: AbortSignal) => Promise<Preflight>;
  /** The format that the release before, which this code is of, can read. */
  readsFormat: number;
  clock: Clock;
  print: (line: string) => void;
}

export interface UpgradeOptions {
  /** A tag, branch or commit; null for the newest version. */
  version: string | null;
  keep: number;
  /** Go on where the new release writes what the old one cannot read. */
  noWayBack: boolean;
  timing?: Partial<typeof settleTiming>;
}

/** How long a switch may take to come up, how long it must then be well, and how often that is looked at. */
export const settleTiming = { upWithinMs: 90_000, stableMs: 10_000, lookMs: 1_000 };

export async function upgrade(
  deps: UpgradeDeps,
  options: UpgradeOptions,
  signal: AbortSignal,
): Promise<void> {
  const { releases, print } = deps;
  await fromRunningRelease(deps, { options, signal }, async ({ before, isWatched }) => {
    print('Fetching what is new …');
    const target = await releases.resolve(options.version, signal);
    if (target.id === before) return print(`${before} (${target.name}) is what runs. Nothing to do.`);
    if (options.version === null && (await releases.isAncestor(target.commit, before, signal)))
      return print(`There is no version newer than ${before}, which runs. Name one to go back to it.`);
    print(`Preparing ${target.id} (${target.name}) beside ${before} …`);
    await releases.prepare(target, signal);
    print('Asking it about the configuration and the streams …');
    const answer = await deps.preflight(releases.folder(target.id), signal);
    if (answer.format.writes > deps.readsFormat && !options.noWayBack) throw noWayBack(answer);
    if (!isWatched) await deps.units.watch(answer.healthUrls);
    signal.throwIfAborted();
    await switchTo(deps, switchingTo(releases, [before, target.id], 'forward'), options);
    const removed = await releases.prune(options.keep);
    if (removed.length > 0) print(`Removed old releases: ${removed.join(', ')}.`);
  });
}

/** Goes to a complete release of this machine; by default further back, and never to what was gone back from. */
export async function rollback(
  deps: UpgradeDeps,
  options: { to: string | null; timing?: Partial<typeof settleTiming> },
  signal: AbortSignal,
): Promise<void> {
  const { releases, print } = deps;
  await fromRunningRelease(deps, { options, signal }, async ({ before, settledSwitch, isWatched }) => {
    // The command that was broken off, given again: it has gone back, and is not to go further.
    if (options.to === null && settledSwitch?.direction === 'back')
      return print(`Rolled back from ${settledSwitch.from} to ${before}.`);
    const target = await rollbackTarget(releases, { before, to: options.to }, signal);
    if (target === before) return print(`${before} is what runs. Nothing to do.`);
    const isForward = await releases.isAncestor(before, target, signal);
    print(`Asking ${target} about the configuration and the streams …`);
    const answer = await deps.preflight(releases.folder(target), signal);
    if (!isWatched) await deps.units.watch(answer.healthUrls);
    signal.throwIfAborted();
    const switching = switchingTo(releases, [before, target], isForward ? 'forward' : 'back');
    await switchTo(deps, switching, options);
  });
}

interface Beginning {
  /** The release that runs. */
  before: string;
  /** Of a run that was broken off, confirmed now. */
  settledSwitch: Switching | null;
  /** Whether it is known where the daemon answers; a release that finds fault with everything did not say it. */
  isWatched: boolean;
}

/** What both begin with: nobody else switches meanwhile, and no earlier switch is left open. */
async function fromRunningRelease(
  deps: UpgradeDeps,
  { options, signal }: { options: Pick<UpgradeOptions, 'timing'>; signal: AbortSignal },
  go: (beginning: Beginning) => Promise<void>,
): Promise<void> {
  const { releases, units, print } = deps;
  using lock = releases.lock();
  void lock;
  const current = currentOf(releases);
  let isWatched = false;
  try {
    await units.watch((await deps.preflight(releases.folder(current), signal)).healthUrls);
    isWatched = true;
  } catch (error) {
    signal.throwIfAborted();
    // Mending that may be what the upgrade is for.
    print(`${current}, which is current, finds fault: ${errorMessage(error)}`);
  }
  const settledSwitch = await settleBroken(deps, options);
  await go({ before: currentOf(releases), settledSwitch, isWatched });
}

async function rollbackTarget(
  releases: Releases,
  { before, to }: { before: string; to: string | null },
  signal: AbortSignal,
): Promise<string> {
  const there = releases.complete();
  const target =
    to === null
      ? await releaseBefore(releases, before, signal)
      : there.find((id) => id === to || (to.length >= 6 && id.startsWith(to)));
  if (target) return target;
  throw new MillraceError(
    'invalid',
    'upgrade.no_release',
    to === null ? 'there is no release before this one' : `there is no release ${to} on this machine`,
    { hint: `Here are ${there.join(', ')}. Another one comes with \`millrace upgrade VERSION\`.` },
  );
}

/** What ran before; where a rollback has gone back from that, the newest here that is older than what runs. */
async function releaseBefore(
  releases: Releases,
  current: string,
  signal: AbortSignal,
): Promise<string | null> {
  const previous = releases.previous();
  if (previous === null || previous !== releases.left()) return previous;
  let newest: string | null = null;
  for (const id of releases.complete()) {
    if (id === current || !(await releases.isAncestor(id, current, signal))) continue;
    if (newest === null || (await releases.isAncestor(newest, id, signal))) newest = id;
  }
  return newest;
}

type DirectedSwitching = Switching & { direction: Direction };

const switchingTo = (
  releases: Releases,
  [from, to]: readonly [from: string, to: string],
  direction: Direction,
): DirectedSwitching => ({ from, to, previous: releases.previous(), direction });

const opposite = (direction: Direction): Direction => (direction === 'forward' ? 'back' : 'forward');

function currentOf(releases: Releases): string {
  const current = releases.current();
  if (current !== null) return current;
  throw new MillraceError(
    'invalid',
    'upgrade.not_installed',
    `${releases.home}/current leads to no release`,
    {
      hint: 'Run setup.sh, or name another folder with --home.',
    },
  );
}

/** Steps 3 to 7. From here on nobody can break it off: it ends on one release or the other. */
async function switchTo(
  deps: UpgradeDeps,
  switching: DirectedSwitching,
  options: Pick<UpgradeOptions, 'timing'>,
): Promise<void> {
  const { releases, units, print } = deps;
  const { from, to, direction } = switching;
  print(`Switching to ${to} …`);
  await releases.begin(switching);
  try {
    await units.install(releases.folder(to));
    await units.restart(direction);
    print('Watching it …');
    await settled(deps, options);
  } catch (error) {
    print(`${to} does not work here: ${errorMessage(error)}`);
    await switchBack(deps, switching, options);
    throw new MillraceError(
      'permanent',
      'upgrade.switched_back',
      `${to} was switched back to ${from}, which runs`,
      {
        hint: 'What is said above is why. `journalctl -u "millrace*"` has more.',
        cause: error,
      },
    );
  }
  await confirm(releases, switching);
  print(
    direction === 'forward'
      ? `${to} runs. \`millrace rollback\` goes back to ${from}.`
      : `Rolled back from ${from} to ${to}, which runs. \`millrace rollback ${from}\` goes there again.`,
  );
}

async function confirm(releases: Releases, { from, to, direction }: DirectedSwitching): Promise<void> {
  await releases.point('previous', from);
  await releases.point('left', direction === 'back' ? from : to);
  await releases.confirm();
}

async function switchBack(
  deps: UpgradeDeps,
  { from, direction }: DirectedSwitching,
  options: Pick<UpgradeOptions, 'timing'>,
): Promise<void> {
  const { releases, units, print } = deps;
  print(`Switching back to ${from} …`);
  await releases.point('current', from);
  await units.install(releases.folder(from));
  try {
    await units.restart(opposite(direction));
    await settled(deps, options);
  } catch (cause) {
    throw new MillraceError(
      'permanent',
      'upgrade.switch_back_failed',
      `${from} is current again, but not everything is well: ${errorMessage(cause)}`,
      {
        hint: 'Look at `millrace doctor` and `journalctl -u "millrace*"`. Mail waits on the streams.',
        cause,
      },
    );
  }
  await releases.confirm();
}

/**
 * A run that was killed in between left its note: its switch is confirmed or undone before anything else.
 * @returns the switch that was confirmed
 */
async function settleBroken(
  deps: UpgradeDeps,
  options: Pick<UpgradeOptions, 'timing'>,
): Promise<Switching | null> {
  const { releases, units, print } = deps;
  const noted = releases.switching();
  if (!noted) return null;
  const switching = { ...noted, direction: noted.direction ?? 'forward' };
  const { from, to, direction } = switching;
  print(`An earlier switch from ${from} to ${to} was broken off. Settling it first …`);
  if (releases.current() === to) {
    try {
      await units.install(releases.folder(to));
      await units.restart(direction);
      await settled(deps, options);
      await confirm(releases, switching);
      print(`${to} runs.`);
      return switching;
    } catch (error) {
      print(`${to} does not work here: ${errorMessage(error)}`);
    }
  }
  if (releases.current() !== to && releases.current() !== from) {
    // Somebody has brought a third one since, by setup.sh or by hand.
    await releases.confirm();
    print(`${releases.current()} runs.`);
    return null;
  }
  await switchBack(deps, switching, options);
  print(`${from} runs.`);
  return null;
}

/** Resolves when there was no fault for a while. */
async function settled(
  { units, clock }: UpgradeDeps,
  options: Pick<UpgradeOptions, 'timing'>,
): Promise<void> {
  const { upWithinMs, stableMs, lookMs } = { ...settleTiming, ...options.timing };
  const startedMs = clock.monotonicMs();
  for (let wellSinceMs: number | null = null; ;) {
    const faults = await units.faults();
    const nowMs = clock.monotonicMs();
    if (faults.length > 0) {
      if (nowMs - startedMs > upWithinMs)
        throw new MillraceError('permanent', 'upgrade.not_healthy', faults.join('; '));
      wellSinceMs = null;
    } else {
      wellSinceMs ??= nowMs;
      if (nowMs - wellSinceMs >= stableMs) return;
    }
    await clock.sleep(lookMs);
  }
}

function noWayBack({ release, format }: Preflight): MillraceError {
  return new MillraceError(
    'invalid',
    'upgrade.no_way_back',
    `release ${release} writes records of format ${format.writes}, which the release that runs now cannot read`,
    {
      hint: 'Upgrade to a version in between first, which reads both. Or give up the way back with --no-way-back, after a `millrace backup`.',
    },
  );
}
