/** The Web's named error, and the events that its targets dispatch. A guest's classes get the Web's names in globals.ts. */

/** https://webidl.spec.whatwg.org/#idl-DOMException-error-names: names that still have a number. */
const CODES: Readonly<Record<string, number>> = {
  InvalidCharacterError: 5,
  NotFoundError: 8,
  NotSupportedError: 9,
  InvalidStateError: 11,
  SyntaxError: 12,
  InvalidAccessError: 15,
  TypeMismatchError: 17,
  SecurityError: 18,
  NetworkError: 19,
  AbortError: 20,
  QuotaExceededError: 22,
  TimeoutError: 23,
  DataCloneError: 25,
};

export class GuestDOMException extends Error {
  readonly code: number;

  constructor(message: unknown = '', options: unknown = 'Error') {
    const { name = 'Error', cause } = (typeof options === 'object' && options !== null ? options : {}) as {
      name?: unknown;
      cause?: unknown;
    };
    super(String(message), cause === undefined ? undefined : { cause });
    const ownName = String(typeof options === 'object' ? name : options);
    Object.defineProperty(this, 'name', { value: ownName, configurable: true });
    this.code = Object.hasOwn(CODES, ownName) ? CODES[ownName]! : 0;
  }
}

/** What a listener threw is nobody's to catch: it is shown as a rejection that nobody handled. */
export async function reportError(error: unknown): Promise<void> {
  throw error;
}

export class GuestEvent {
  readonly type: string;
  readonly bubbles: boolean;
  readonly cancelable: boolean;
  readonly timeStamp = Date.now();
  target: unknown = null;
  currentTarget: unknown = null;
  defaultPrevented = false;
  /** Set by `stopImmediatePropagation`. */
  isStopped = false;

  constructor(type: unknown, init: { bubbles?: boolean; cancelable?: boolean } = {}) {
    this.type = String(type);
    this.bubbles = Boolean(init.bubbles);
    this.cancelable = Boolean(init.cancelable);
    Object.defineProperty(this, 'isStopped', { enumerable: false });
  }
  preventDefault(): void {
    if (this.cancelable) this.defaultPrevented = true;
  }
  stopPropagation(): void {}
  stopImmediatePropagation(): void {
    this.isStopped = true;
  }
}

export type Listener = ((event: GuestEvent) => void) | { handleEvent(event: GuestEvent): void };

interface Registration {
  type: string;
  listener: Listener;
  isOnce: boolean;
}

interface AbortSource {
  aborted: boolean;
  addEventListener(type: string, listener: Listener): void;
}

export class GuestEventTarget {
  #registrations: Registration[] = [];

  addEventListener(
    type: unknown,
    listener: Listener | null,
    options?: boolean | { once?: boolean; signal?: AbortSource },
  ): void {
    const { once = false, signal } = typeof options === 'object' ? options : {};
    if (!listener || signal?.aborted) return;
    const isThere = this.#registrations.some((held) => held.type === type && held.listener === listener);
    if (isThere) return;
    this.#registrations.push({ type: String(type), listener, isOnce: Boolean(once) });
    signal?.addEventListener('abort', () => this.removeEventListener(type, listener));
  }

  removeEventListener(type: unknown, listener: Listener | null): void {
    this.#registrations = this.#registrations.filter(
      (held) => held.type !== String(type) || held.listener !== listener,
    );
  }

  dispatchEvent(event: GuestEvent): boolean {
    event.target = event.currentTarget = this;
    for (const registration of this.#registrations) {
      if (registration.type !== event.type || event.isStopped) continue;
      const { listener, isOnce } = registration;
      // Removed by a listener before it: `removeEventListener` makes a new list, so this one is still whole.
      if (!this.#registrations.includes(registration)) continue;
      if (isOnce) this.removeEventListener(event.type, listener);
      try {
        if (typeof listener === 'function') Reflect.apply(listener, this, [event]);
        else listener.handleEvent(event);
      } catch (error) {
        void reportError(error);
      }
    }
    event.currentTarget = null;
    return !event.defaultPrevented;
  }
}
