/**
 * What a service manager is told: *ready* once the process can do its work, then a sign of life at a third of
 * the watchdog's time, and *stopping* at the end.
 *
 * A sign of life says more than that a timer fired. It is given while no service has been down for longer than
 * the supervisor of services (`lifecycle.ts`) ever lets it be, so that what is stuck there is started anew.
 * A store or a provider that is away is no reason: those who need it are trying again, and would after a
 * restart, too.
 */
import type { Clock } from './clock.ts';
import type { Service, ServiceHealth } from './lifecycle.ts';
import type { Log } from './log.ts';
import type { Supervisor } from './supervisor.ts';
import { systemdNotify } from './systemd-notify.ts';

interface SupervisionDeps {
  clock: Clock;
  log: Log;
  health: {
    /** What keeps this process from its work, in words; empty when it is ready. */
    workFaults(): Promise<readonly string[]>;
    look(): { readonly services: readonly ServiceHealth[] };
  };
}

/** Longer than the longest wait between two starts of a service. */
const MAX_DOWN_MS = 60_000;
const READY_CHECK_MS = 200;
const STATUS_EVERY_MS = 10_000;
const SIGNS_PER_WATCHDOG = 3;

/** The service that reports, where a service manager asks for it; else none. */
export function supervisionOf(
  deps: SupervisionDeps,
  { notifySocket, watchdogMs }: Pick<Supervisor, 'notifySocket' | 'watchdogMs'>,
): Service[] {
  if (notifySocket === null) return [];
  return [createSupervision({ ...deps, notify: systemdNotify(notifySocket) }, { watchdogMs })];
}

/** `notify` reports assignments such as `READY=1`. */
export function createSupervision(
  deps: SupervisionDeps & { notify: (...assignments: string[]) => Promise<void> },
  options: { watchdogMs: number | null },
): Service {
  const { clock, log, health } = deps;
  const everyMs = options.watchdogMs === null ? STATUS_EVERY_MS : options.watchdogMs / SIGNS_PER_WATCHDOG;

  const isAlive = (): boolean => health.look().services.every(({ downMs }) => downMs <= MAX_DOWN_MS);

  async function report(...assignments: string[]): Promise<void> {
    try {
      await deps.notify(...assignments);
    } catch (error) {
      // Who is not heard is started anew by the service manager; there is nobody else to tell.
      log.error({ error, assignments }, 'supervision.report_failed');
    }
  }

  return {
    name: 'supervision',
    async run(signal) {
      const pause = (ms: number): Promise<void> => clock.sleep(ms, signal).catch(() => {});
      let status = '';
      let isReady = false;
      while (!signal.aborted) {
        const found = await health.workFaults();
        const words: string[] = [];
        if (!isReady && found.length === 0) words.push('READY=1');
        if (isReady && options.watchdogMs !== null && isAlive()) words.push('WATCHDOG=1');
        if (statusOf(found) !== status) words.push(statusOf(found));
        status = statusOf(found);
        isReady ||= found.length === 0;
        if (words.length > 0) await report(...words);
        await pause(isReady ? everyMs : READY_CHECK_MS);
      }
      await report('STOPPING=1', 'STATUS=finishing what is under way');
    },
  };
}

function statusOf(faults: readonly string[]): string {
  return `STATUS=${faults.length === 0 ? 'ready' : `not ready: ${faults.join('; ')}`}`;
}
