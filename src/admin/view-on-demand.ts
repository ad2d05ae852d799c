/**
 * A mailbox view that works only while somebody looks. Real mail can be much, and most of the time nobody looks: then
 * nothing is read and nothing is kept. The first question brings the view up, which takes a look at the newest part
 * of the streams; a while after the last one it is let go.
 */
import { orAborted } from '../platform/abort.ts';
import type { Clock } from '../platform/clock.ts';
import type { MailboxView } from './mailbox-view.ts';

/** Long enough that a page which reconnects finds it still there. */
const IDLE_MS = 60_000;

/** @param create makes a view that knows nothing yet */
export function createViewOnDemand(clock: Clock, create: () => MailboxView): MailboxView {
  return new ViewOnDemand(clock, create);
}

class ViewOnDemand implements MailboxView {
  readonly #clock: Clock;
  readonly #create: () => MailboxView;
  /** Whoever waits for a view, for the end of one, or for this to end. */
  #turn = Promise.withResolvers<void>();
  #view: MailboxView | null = null;
  /** What the views before have counted up to. */
  #base = 0;
  #looking = 0;
  #hasEnded = false;
  #letGo: () => void = () => {};
  #cancelIdle: () => void = () => {};

  constructor(clock: Clock, create: () => MailboxView) {
    this.#clock = clock;
    this.#create = create;
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#hasEnded = false;
    const onAbort = (): void => this.#nextTurn();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (!signal.aborted) {
        if (this.#looking > 0) await this.#runView(signal);
        else await this.#turn.promise;
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#hasEnded = signal.aborted;
      this.#nextTurn();
    }
  }

  async #runView(signal: AbortSignal): Promise<void> {
    const idle = new AbortController();
    const view = this.#create();
    this.#view = view;
    this.#letGo = () => idle.abort();
    this.#nextTurn();
    try {
      await view.run(AbortSignal.any([signal, idle.signal]));
    } finally {
      this.#cancelIdle();
      this.#base += view.version();
      this.#view = null;
      this.#nextTurn();
    }
  }

  version(): number {
    return this.#base + (this.#view?.version() ?? 0);
  }

  /** Looking is what brings the view up; what it resolves to is never from before it had read the streams. */
  async changed(sinceVersion: number, signal: AbortSignal): Promise<boolean> {
    this.#cancelIdle();
    this.#looking++;
    if (this.#looking === 1) this.#nextTurn();
    try {
      while (!signal.aborted && !this.#hasEnded) {
        const view = this.#view;
        const base = this.#base;
        if (view === null) await this.#nextTurnOr(signal);
        else if (view.version() > 0 && base + view.version() > sinceVersion) return true;
        else if (!(await view.changed(Math.max(0, sinceVersion - base), signal)))
          await this.#nextTurnOr(signal);
      }
      return !this.#hasEnded;
    } finally {
      this.#looking--;
      if (this.#looking === 0) this.#cancelIdle = this.#clock.after(IDLE_MS, () => this.#letGo());
    }
  }

  conversations(): ReturnType<MailboxView['conversations']> {
    return this.#view?.conversations() ?? [];
  }

  mail(emailId: string): ReturnType<MailboxView['mail']> {
    return this.#view?.mail(emailId);
  }

  tools(): ReturnType<MailboxView['tools']> {
    return this.#view?.tools() ?? { live: null, refused: null };
  }

  #nextTurn(): void {
    const { resolve } = this.#turn;
    this.#turn = Promise.withResolvers();
    resolve();
  }

  async #nextTurnOr(signal: AbortSignal): Promise<void> {
    await orAborted(this.#turn.promise, signal).catch(() => {});
  }
}
