/**
 * One simulation: under a seed, mails arrive at a daemon of three stages, some of them twice, while the
 * network, the store, the provider and the clock fail, and the daemon is killed, paused, replaced and stopped
 * at any event. Where journals are kept for long, one of its stages may be away for longer than the others remember
 * keys, while they go on. Then the weather clears, and everything has to come to its end.
 */
import { errorMessage, hasCode } from '../../src/platform/errors.ts';
import { streamNames } from '../../src/streams/records.ts';
import { createDaemonProcess } from './daemon-process.ts';
import type { DaemonProcess, Weather } from './daemon-process.ts';
import { createDurableStreams } from './durable-streams.ts';
import type { DurableStreams } from './durable-streams.ts';
import { createOracle } from './oracle.ts';
import type { Oracle } from './oracle.ts';
import { LAST_REPEAT_MS, LONGEST_PAUSE_MS, createPipeline, journalOf, mailRecord } from './pipeline.ts';
import type { MailPlan, Pipeline, Roles } from './pipeline.ts';
import { createProvider } from './provider.ts';
import { createWorld } from './world.ts';
import type { World } from './world.ts';

export interface SimulationResult {
  readonly seed: number;
  /** What must not be, and was seen; empty for a good run. */
  readonly faults: readonly string[];
  readonly traceHash: string;
  readonly events: number;
  readonly mails: number;
  readonly kills: number;
  readonly simulatedMs: number;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** So short that journals are trimmed all the time. */
const SHORT_HISTORY = MINUTE;
/** Longer than anybody is away. */
const LONG_HISTORY = 90 * DAY;
/** Handlers may go on for 8 s; what they yield has a moment more, whatever the store does. */
const MAX_END_MS = 10 * SECOND;
/** After so many events the weather clears, whatever is still to come. */
const MAX_STORMY_EVENTS = 4_000;
/** And after so many more everything must have come to its end. */
const MAX_CALM_EVENTS = 60_000;

interface Daemon {
  readonly process: DaemonProcess;
  readonly pipeline: Pipeline;
  readonly stop: AbortController;
  hasEnded: boolean;
}

interface Scene {
  readonly world: World;
  readonly weather: Weather;
  readonly oracle: Oracle;
  readonly durable: DurableStreams;
  /** Brings up a new daemon, which takes over from whoever runs. */
  start(): void;
  current(): Daemon | undefined;
  readonly roles: Roles;
  zombies: Daemon[];
  /** Whoever ever ran. */
  readonly daemons: Daemon[];
  kills: number;
  arrivals: number;
  isCalm: boolean;
}

export async function simulate(seed: number, watch?: (line: string) => void): Promise<SimulationResult> {
  const world = createWorld(seed, watch);
  const startMs = world.nowMs();
  const scene = createScene(world);
  const { oracle, weather } = scene;
  const mails = scheduleMails(scene);
  scheduleWeather(scene);
  const troubleRate = world.pick([0, 0.002, 0.01, 0.03]);
  let troubles = world.int(12);
  scene.start();
  for (let events = 0; events < MAX_STORMY_EVENTS && oracle.faults.length === 0; events++) {
    if (scene.arrivals === 0 && oracle.isSettled()) break;
    if (!(await world.step())) break;
    watchMemory(scene);
    if (troubles > 0 && world.chance(troubleRate) && makeTrouble(scene)) troubles--;
  }
  scene.isCalm = true;
  scene.roles.awayUntilMs.clear();
  Object.assign(weather, { faultRate: 0, slowRate: 0, isStoreDown: false });
  for (const zombie of scene.zombies) zombie.process.resume();
  await calmDown(scene, () => scene.arrivals === 0 && oracle.isSettled());
  oracle.judge();
  if (oracle.faults.length > 0) return result();
  // Whatever a fresh daemon finds, there is nothing left to do.
  if (scene.current()?.process.isAlive()) scene.current()?.process.kill();
  scene.start();
  // A fence that was late may end the daemon: then the one that follows counts.
  await calmDown(scene, () => hasReadAll(scene, scene.current()!.pipeline));
  oracle.judge();
  return result();

  function result(): SimulationResult {
    // Node keeps a combined signal that somebody listens to until it is aborted: the dead would stay for ever.
    for (const { process, stop } of scene.daemons) {
      process.kill();
      stop.abort();
    }
    return {
      seed,
      faults: oracle.faults,
      traceHash: world.traceHash(),
      events: world.events,
      mails,
      kills: scene.kills,
      simulatedMs: world.nowMs() - startMs,
    };
  }
}

function createScene(world: World): Scene {
  const oracle = createOracle(world);
  const durable = createDurableStreams({
    nowMs: () => world.nowMs(),
    observe: (name, records) => oracle.observe(name, records),
  });
  const provider = createProvider(world, (mailId) => oracle.mailLeft(mailId));
  const roles: Roles = {
    historyMs: world.pick([SHORT_HISTORY, SHORT_HISTORY, LONG_HISTORY]),
    awayUntilMs: new Map(),
  };
  const weather: Weather = { faultRate: 0, slowRate: 0, isStoreDown: false, wallOffsetMs: 0 };
  let current: Daemon | undefined;
  let born = 0;

  /** A daemon that ended by itself is started again, unless another one has its place. */
  function ended(daemon: Daemon, error: unknown): void {
    daemon.hasEnded = true;
    world.trace(`${daemon.process.name} ended: ${error === undefined ? 'as told' : errorMessage(error)}`);
    if (error !== undefined && !hasCode(error, 'stage.ownership_lost'))
      oracle.fault(`${daemon.process.name} ended: ${errorMessage(error)}`);
    if (daemon === current) world.after(SECOND, () => daemon === current && scene.start());
  }

  const scene: Scene = {
    world,
    weather,
    oracle,
    durable,
    roles,
    zombies: [],
    daemons: [],
    kills: 0,
    arrivals: 0,
    isCalm: false,
    current: () => current,
    start() {
      const process = createDaemonProcess(world, weather, `daemon-${++born}`);
      const watched: DurableStreams = {
        ...durable,
        read(name, fromSeqNum, maxRecords) {
          const batch = durable.read(name, fromSeqNum, maxRecords);
          oracle.observeRead(process, name, batch.records.length);
          return batch;
        },
      };
      const pipeline = createPipeline(process, { durable: watched, provider, oracle, roles });
      const daemon: Daemon = { process, pipeline, stop: new AbortController(), hasEnded: false };
      current = daemon;
      scene.daemons.push(daemon);
      world.trace(`${process.name} starts`);
      pipeline.services.run(daemon.stop.signal).then(
        () => ended(daemon, undefined),
        (error: unknown) => ended(daemon, error),
      );
    },
  };
  return scene;
}

/** Plans the mails and their second copies; returns how many there are. */
function scheduleMails(scene: Scene): number {
  const { world, oracle, durable } = scene;
  const mails = 3 + world.int(world.pick([10, 40]));
  const threads = 1 + world.int(world.pick([2, 8, 40]));
  const spreads = [SECOND, MINUTE, HOUR, 2 * DAY];
  const spreadMs = world.pick(isLong(scene) ? [...spreads, DAY, DAY] : spreads);
  const deliver = (plan: MailPlan, delayMs: number): void => {
    scene.arrivals++;
    world.after(delayMs, () => {
      scene.arrivals--;
      oracle.expectMail(plan);
      durable.write(streamNames.events, { records: [mailRecord(plan)] });
    });
  };
  for (let n = 0; n < mails; n++) {
    const inbox = world.pick(['a', 'a', 'b'] as const);
    const plan: MailPlan = {
      mailId: `mail-${n}`,
      thread: `${inbox}/thread-${world.int(threads)}`,
      inbox,
      fetchFails: world.chance(0.2) ? 1 + world.int(3) : 0,
      isMalformed: world.chance(0.03),
      toolFails: world.chance(0.2) ? 1 + world.int(3) : 0,
      toolMs: world.int(world.pick([10, 1_000, 20_000])),
      tool: world.chance(0.8) ? 'reply' : world.pick(['skip', 'throw', 'hang']),
      laterMs: world.chance(0.15) ? world.int(world.pick([MINUTE, DAY, 20 * DAY])) : null,
      isRejected: world.chance(0.03),
    };
    const arrivalMs = world.int(spreadMs);
    deliver(plan, arrivalMs);
    while (world.chance(0.25)) deliver(plan, arrivalMs + world.int(world.pick([5, MINUTE, LAST_REPEAT_MS])));
  }
  return mails;
}

function scheduleWeather({ world, weather }: Scene): void {
  weather.faultRate = world.pick([0, 0.02, 0.1, 0.3]);
  weather.slowRate = world.pick([0, 0.02, 0.2]);
  for (let outages = world.int(4); outages > 0; outages--) {
    const beginMs = world.int(world.pick([MINUTE, HOUR, DAY]));
    const endMs = beginMs + world.int(world.pick([5 * SECOND, 10 * MINUTE]));
    world.after(beginMs, () => (weather.isStoreDown = true));
    world.after(endMs, () => (weather.isStoreDown = false));
  }
  const jumpMs = world.pick([0, HOUR, -HOUR]);
  for (let jumps = world.int(4); jumps > 0; jumps--)
    world.after(world.int(world.pick([MINUTE, DAY])), () => {
      weather.wallOffsetMs = weather.wallOffsetMs === 0 ? jumpMs : 0;
      world.trace(`the wall clock is off by ${weather.wallOffsetMs} ms`);
    });
}

/** Something happens to the daemon; false when there is none to which it could. */
function makeTrouble(scene: Scene): boolean {
  const { world } = scene;
  const daemon = scene.current();
  if (!daemon || daemon.hasEnded || !daemon.process.isAlive() || daemon.process.isPaused()) return false;
  const stopMs = world.pick([0, 0, SECOND, MINUTE, 25 * HOUR, 10 * DAY]);
  const trouble = world.pick(['kill', 'kill', 'kill', 'pause', 'stop'] as const);
  world.trace(`${trouble} ${daemon.process.name}`);
  if (trouble === 'stop') {
    // Whether it has ended before the next one starts is left open. An event of its own, so that it begins to end now.
    world.after(0, () => daemon.stop.abort());
    world.after(MAX_END_MS, () => {
      const isExcused = daemon.hasEnded || !daemon.process.isAlive() || scene.zombies.includes(daemon);
      if (!isExcused) scene.oracle.fault(`${daemon.process.name} was told to end and does not`);
    });
  } else if (trouble === 'kill') {
    scene.kills++;
    daemon.process.kill();
    if (isLong(scene) && world.chance(0.5)) sendAway(scene);
  } else {
    daemon.process.pause();
    scene.zombies.push(daemon);
    const pauses = isLong(scene) ? [MINUTE, LONGEST_PAUSE_MS, 10 * HOUR] : [MINUTE, LONGEST_PAUSE_MS];
    world.after(world.int(world.pick(pauses)), () => daemon.process.resume());
  }
  world.after(trouble === 'pause' ? world.int(10 * MINUTE) : stopMs, () => {
    if (scene.current() === daemon) scene.start();
  });
  return true;
}

/** Whether journals are kept for so long that they know what stages have forgotten. */
function isLong({ roles }: Scene): boolean {
  return roles.historyMs === LONG_HISTORY;
}

/** One stage does not come back with the daemon, for longer than the others remember keys. */
function sendAway({ world, roles }: Scene): void {
  const source = world.pick(Object.keys(journalOf));
  const untilMs = world.nowMs() + world.pick([8 * HOUR, 20 * HOUR]);
  world.trace(`${source} is away until ${untilMs}`);
  roles.awayUntilMs.set(source, untilMs);
}

/** Goes on until `isDone`, which has to be within `MAX_CALM_EVENTS`. */
async function calmDown(scene: Scene, isDone: () => boolean): Promise<void> {
  const { world, oracle } = scene;
  for (let events = 0; oracle.faults.length === 0 && !isDone(); events++) {
    if (events > MAX_CALM_EVENTS || !(await world.step())) {
      const stats = [...(scene.current()?.pipeline.stages ?? [])].map(([name, stage]) => ({
        name,
        ...stage.stats(),
      }));
      oracle.fault(`it does not come to its end: ${JSON.stringify(stats)}`);
      return;
    }
    watchMemory(scene);
  }
}

function watchMemory({ current, oracle, zombies }: Scene): void {
  const isAlone = zombies.length === 0;
  for (const [source, stage] of current()?.pipeline.stages ?? [])
    oracle.watchMemory(stage, { source, isAlone });
}

/** The daemon stands at the end of all its sources and has nothing in hand. */
function hasReadAll({ durable }: Scene, { stages }: Pipeline): boolean {
  return Object.keys(journalOf).every((source) => {
    const stats = stages.get(source)?.stats();
    return stats && stats.position >= durable.tail(source) && stats.inMemory === 0 && stats.aside === 0;
  });
}
