/** `AbortController` and `AbortSignal`, with as much of `EventTarget` as they need. */
type Listener = ((event: { type: string; target: unknown }) => void) | { handleEvent(event: unknown): void };

/** The Web's named error. */
export class GuestDOMException extends Error {
  constructor(message = '', name = 'Error') {
    super(message);
    this.name = name;
  }
}

/** Lets only this module make and abort signals. */
const internals = new WeakMap<GuestAbortSignal, (reason: unknown) => void>();

export class GuestAbortSignal {
  aborted = false;
  reason: unknown = undefined;
  onabort: Listener | null = null;
  #listeners = new Set<Listener>();

  constructor() {
    internals.set(this, (reason) => {
      if (this.aborted) return;
      this.aborted = true;
      this.reason = reason ?? new GuestDOMException('This operation was aborted', 'AbortError');
      const event = { type: 'abort', target: this };
      const listeners = [...this.#listeners];
      if (this.onabort) listeners.unshift(this.onabort);
      for (const listener of listeners) {
        if (typeof listener === 'function') listener.call(this, event);
        else listener.handleEvent(event);
      }
    });
  }

  addEventListener(type: string, listener: Listener | null): void {
    if (type === 'abort' && listener) this.#listeners.add(listener);
  }

  removeEventListener(_type: string, listener: Listener): void {
    this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  static abort(reason?: unknown): GuestAbortSignal {
    const signal = new GuestAbortSignal();
    internals.get(signal)!(reason);
    return signal;
  }

  static timeout(ms: number): GuestAbortSignal {
    const signal = new GuestAbortSignal();
    const reason = new GuestDOMException('The operation was aborted due to timeout', 'TimeoutError');
    setTimeout(() => internals.get(signal)!(reason), ms);
    return signal;
  }

  static any(signals: Iterable<GuestAbortSignal>): GuestAbortSignal {
    const all = [...signals];
    const signal = new GuestAbortSignal();
    const abort = internals.get(signal)!;
    const aborted = all.find((source) => source.aborted);
    if (aborted) abort(aborted.reason);
    else for (const source of all) source.addEventListener('abort', () => abort(source.reason));
    return signal;
  }
}

export class GuestAbortController {
  readonly signal = new GuestAbortSignal();

  abort(reason?: unknown): void {
    internals.get(this.signal)!(reason);
  }
}
