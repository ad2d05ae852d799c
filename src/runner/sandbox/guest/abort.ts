/** `AbortController` and `AbortSignal`. Only this module makes signals and aborts them. */
import { GuestDOMException, GuestEvent, GuestEventTarget } from './dom-exception.ts';
import type { Listener } from './dom-exception.ts';

const OURS = Symbol('made by this module');
const MAX_TIMEOUT_MS = Number.MAX_SAFE_INTEGER;
const aborts = new WeakMap<GuestAbortSignal, (reason: unknown) => void>();

export class GuestAbortSignal extends GuestEventTarget {
  #isAborted = false;
  #reason: unknown = undefined;
  #onabort: Listener | null = null;

  constructor(token?: symbol) {
    if (token !== OURS) throw new TypeError('Illegal constructor');
    super();
    aborts.set(this, (reason) => {
      if (this.#isAborted) return;
      this.#isAborted = true;
      this.#reason = reason;
      this.dispatchEvent(new GuestEvent('abort'));
    });
  }

  get aborted(): boolean {
    return this.#isAborted;
  }
  get reason(): unknown {
    return this.#reason;
  }
  get onabort(): Listener | null {
    return this.#onabort;
  }
  set onabort(listener: unknown) {
    this.removeEventListener('abort', this.#onabort);
    this.#onabort = typeof listener === 'function' ? (listener as Listener) : null;
    this.addEventListener('abort', this.#onabort);
  }
  throwIfAborted(): void {
    if (this.#isAborted) throw this.#reason;
  }

  static abort(...reason: unknown[]): GuestAbortSignal {
    const signal = new GuestAbortSignal(OURS);
    aborts.get(signal)!(reasonFrom(reason));
    return signal;
  }

  static timeout(ms: unknown): GuestAbortSignal {
    const delay = Number(ms);
    if (Number.isNaN(delay)) throw new TypeError('the delay is no number');
    if (!(delay >= 0 && delay <= MAX_TIMEOUT_MS)) throw new RangeError('the delay is out of range');
    const signal = new GuestAbortSignal(OURS);
    const reason = new GuestDOMException('The operation was aborted due to timeout', 'TimeoutError');
    setTimeout(() => aborts.get(signal)!(reason), delay);
    return signal;
  }

  static any(signals: Iterable<GuestAbortSignal>): GuestAbortSignal {
    const all = [...signals];
    const stranger = all.find((source) => !aborts.has(source));
    if (stranger !== undefined) throw new TypeError('expected signals');
    const signal = new GuestAbortSignal(OURS);
    const abort = aborts.get(signal)!;
    const aborted = all.find((source) => source.aborted);
    if (aborted) abort(aborted.reason);
    else for (const source of all) source.addEventListener('abort', () => abort(source.reason));
    return signal;
  }
}

export class GuestAbortController {
  readonly #signal = new GuestAbortSignal(OURS);

  get signal(): GuestAbortSignal {
    return this.#signal;
  }
  abort(...reason: unknown[]): void {
    aborts.get(this.#signal)!(reasonFrom(reason));
  }
}

function reasonFrom([reason]: unknown[]): unknown {
  return reason === undefined ? new GuestDOMException('This operation was aborted', 'AbortError') : reason;
}
