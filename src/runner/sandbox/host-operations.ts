/**
 * What the callback of a guest may ask of its process, and the state of the run that it asks for.
 *
 * Nothing here throws: an exception would show our stack to the guest. Names and payloads come from hostile
 * code; what is too much ends the run.
 */
import { systemClock } from '../../platform/clock.ts';
import { MAX_CAUSES } from './causes.ts';
import { CALL_FLOOD, callLimits, loggedBytes, MAX_MESSAGE_PARTS } from './flood-limits.ts';
import { hasAtMostParts } from './json-parts.ts';
import type { Delivery, FromChild } from './messages.ts';
import type { PendingCalls } from './pending-calls.ts';
import type { FailureReason, RunLimits } from './sandbox.ts';

const MAX_TIMERS = 1_000;
const WIDE_CALL = `the tool asked its host for more than ${MAX_MESSAGE_PARTS} values at once`;
/** Among a run's timers, the one that ends it; the guest's are numbered from 1. */
export const DEADLINE_TIMER = 0;
const MAX_RANDOM_BYTES = 65_536;
/** Of a digest, an HMAC or a text to decode, in base64: a run has its memory limit, this process none for it. */
const MAX_CODED_CHARS = 48 * 1024 * 1024;
const HASHES: Readonly<Record<string, string>> = {
  'SHA-1': 'sha1',
  'SHA-256': 'sha256',
  'SHA-384': 'sha384',
  'SHA-512': 'sha512',
};

/** Loaded for the first tool that wants it: most want none, and the process would start later for it. */
const nodeCrypto = (): typeof import('node:crypto') => process.getBuiltinModule('node:crypto');

export interface GuestRun {
  number: number;
  limits: RunLimits;
  deadlineMs: number;
  pendingCalls: PendingCalls;
  timers: Map<number, () => void>;
  logBytes: number;
  /** What the guest reported; sent when its entry has ended. */
  outcome: FromChild | null;
  over: PromiseWithResolvers<void>;
  isOver: boolean;
  /** False once something of it may outlive it: its isolate is then not used again. */
  isClean: boolean;
  mailbox: { delivery: Delivery; bytes: ArrayBuffer | null }[];
}

export type HostOperations = Record<string, (run: GuestRun, payload: string) => string | void>;

export function createHostOperations(host: {
  deliver: (run: GuestRun, delivery: Delivery) => void;
  fail: (run: GuestRun, reason: FailureReason, message: string) => void;
  send: (message: FromChild) => void;
}): HostOperations {
  return neverThrowing(host, {
    log(run, line) {
      run.logBytes += loggedBytes(line);
      if (run.logBytes > run.limits.maxLogBytes) {
        return host.fail(run, 'log-flood', `the tool logged more than ${run.limits.maxLogBytes} bytes`);
      }
      host.send({ type: 'log', run: run.number, line });
    },
    call(run, payload) {
      if (!hasAtMostParts(payload, MAX_MESSAGE_PARTS)) return host.fail(run, 'call-flood', WIDE_CALL);
      const request = parsed(payload) as { call: number; name: unknown; argument: unknown } | null;
      if (request === null || !Number.isSafeInteger(request.call)) return;
      const { inAll, size } = run.pendingCalls;
      if (inAll >= callLimits.inAll || size >= callLimits.atOnce) {
        return host.fail(run, 'call-flood', CALL_FLOOD);
      }
      const { call, name, argument } = request;
      run.pendingCalls.add(
        { type: 'call', run: run.number, call, name: String(name), argument },
        payload.length,
      );
    },
    abort(run, payload) {
      const call = Number(payload);
      if (run.pendingCalls.remove(call) === 'sent') host.send({ type: 'abort', run: run.number, call });
    },
    timer(run, payload) {
      const { id, ms } = (parsed(payload) ?? {}) as { id?: unknown; ms?: unknown };
      if (!Number.isSafeInteger(id) || typeof ms !== 'number') return;
      if (run.timers.size > MAX_TIMERS) {
        return host.fail(run, 'call-flood', `the tool started more than ${MAX_TIMERS} timers`);
      }
      const timer = id as number;
      const due = (): void => {
        run.timers.delete(timer);
        host.deliver(run, { kind: 'timer', id: timer });
      };
      if (timer > DEADLINE_TIMER && ms <= run.limits.timeoutMs)
        run.timers.set(timer, systemClock.after(ms, due));
    },
    'clear-timer'(run, payload) {
      const timer = Number(payload);
      if (!(timer > DEADLINE_TIMER)) return;
      run.timers.get(timer)?.();
      run.timers.delete(timer);
    },
    /** Says that something of the run may outlive it. */
    retire(run) {
      run.isClean = false;
    },
    url: (_run, payload) => JSON.stringify(urlParts(parsed(payload))),
    random: (_run, payload) => {
      const count = Math.min(Math.max(Math.trunc(Number(payload)) || 0, 0), MAX_RANDOM_BYTES);
      return nodeCrypto().randomBytes(count).toString('base64');
    },
    digest: (_run, payload) => hashed(payload),
    hmac: (_run, payload) => hashed(payload),
    encoding: (_run, label) => encodingFrom(label),
    decode: (_run, payload) => JSON.stringify(decodedText(parsed(payload))),
    returned(run, json) {
      const bytes = Buffer.byteLength(json);
      const { maxResultBytes } = run.limits;
      run.outcome ??=
        bytes <= maxResultBytes
          ? { type: 'returned', run: run.number, json }
          : {
              type: 'failed',
              run: run.number,
              reason: 'result-too-large',
              message: `the tool returned ${bytes} bytes; at most ${maxResultBytes} are taken`,
              stack: '',
            };
    },
    failed(run, payload) {
      const { reason, message, stack, causes } = (parsed(payload) ?? {}) as Record<string, unknown>;
      run.outcome ??= {
        type: 'failed',
        run: run.number,
        reason: reason === 'invalid-result' ? reason : 'threw',
        message: String(message),
        stack: String(stack),
        causes: Array.isArray(causes) ? causes.slice(0, MAX_CAUSES) : [],
      };
    },
  });
}

/** An exception would show the guest our stack: whose payload makes one loses its process instead. */
function neverThrowing(
  host: { fail: (run: GuestRun, reason: FailureReason, message: string) => void },
  operations: HostOperations,
): HostOperations {
  const guarded = Object.entries(operations).map(([name, operation]): [string, HostOperations[string]] => [
    name,
    (run, payload) => {
      try {
        return operation(run, payload);
      } catch {
        host.fail(run, 'crashed', `the tool asked its host (${name}) for what cannot be passed on`);
      }
    },
  ]);
  return Object.fromEntries(guarded);
}

/** Digest or, with a key, HMAC, in base64; empty where that cannot be. */
function hashed(payload: string): string {
  const { hash, key, data } = (parsed(payload) ?? {}) as Record<string, unknown>;
  if (typeof hash !== 'string' || !Object.hasOwn(HASHES, hash)) return '';
  if (typeof data !== 'string' || data.length > MAX_CODED_CHARS) return '';
  const name = HASHES[hash]!;
  const { createHash, createHmac } = nodeCrypto();
  const algorithm =
    key === undefined ? createHash(name) : createHmac(name, Buffer.from(String(key), 'base64'));
  return algorithm.update(data, 'base64').digest('base64');
}

/** The standard's name of an encoding, for any of its labels; empty where there is none. */
function encodingFrom(label: string): string {
  try {
    return new TextDecoder(label).encoding;
  } catch {
    return '';
  }
}

/** Null where the bytes are not of that encoding and must be. */
function decodedText(request: unknown): string | null {
  const { label, fatal, ignoreBOM, bytes } = (request ?? {}) as Record<string, unknown>;
  if (typeof bytes !== 'string' || bytes.length > MAX_CODED_CHARS) return null;
  const options = { fatal: fatal === true, ignoreBOM: ignoreBOM === true };
  try {
    return new TextDecoder(String(label), options).decode(Buffer.from(bytes, 'base64'));
  } catch {
    return null;
  }
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

const URL_PARTS = [
  'href',
  'origin',
  'protocol',
  'username',
  'password',
  'host',
  'hostname',
  'port',
  'pathname',
  'search',
  'hash',
] as const;

/** Parses for the guest's `URL`; null where it is none. */
function urlParts(request: unknown): Record<string, string> | null {
  const { url, base, set } = (request ?? {}) as { url?: unknown; base?: unknown; set?: [string, unknown] };
  const parsedUrl = URL.parse(String(url), base === undefined ? undefined : String(base));
  if (!parsedUrl) return null;
  const part = URL_PARTS.find((name) => name === set?.[0]);
  if (part && part !== 'origin') parsedUrl[part] = String(set?.[1]);
  return Object.fromEntries(URL_PARTS.map((name) => [name, parsedUrl[name]]));
}
