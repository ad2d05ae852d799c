/**
 * The contract of the sandbox: what a run is given and what comes back.
 *
 * A pool runs one exported function of a bundle on one email, in a child process that holds nothing: empty
 * environment, no file system, no network. Whatever the tool does, `run` answers with a `RunResult`; it
 * rejects only for what is not the tool's doing (the caller's signal, a closed pool, no child will start).
 * Only JSON and plain bytes cross the border, and either side may be replaced without the other.
 */
import type { Mailbox, ParsedEmail } from '../../mail/email.ts';

/** The email as the guest gets it, before it becomes an `Email` of the tool's own realm. */
export type SandboxEmail = ParsedEmail & { id: string; inbox: string; tag: string | null };

/** What a capability answers: a JSON value and, beside it, bytes. */
export interface CapabilityAnswer {
  value: unknown;
  bytes?: Uint8Array;
  /** Called once, when the sandbox has taken the answer or never will. */
  release?: () => void;
}

/**
 * A host function that the guest may call by name. The argument is JSON from hostile code; the signal is
 * aborted when the run ends. A `MillraceError` that is permanent, invalid or `capability.failed` reaches the
 * tool by its message. Any other error is the host's own: the run is rejected with it.
 */
export type Capability = (argument: unknown, signal: AbortSignal) => Promise<CapabilityAnswer>;

export interface RunLimits {
  /** Wall clock of the whole run. */
  timeoutMs: number;
  /** CPU time of the run's process, all its threads together. */
  cpuLimitMs: number;
  memoryLimitMb: number;
  /** Of the JSON of the effects, with attachments in base64. */
  maxResultBytes: number;
  maxLogBytes: number;
}

/** All tools of one revision, as one script. */
export interface ToolCode {
  /** Derived from the code alone: the same tools have the same revision everywhere. */
  revision: string;
  code: string;
  /** JSON; its sources are paths relative to the folder. */
  sourceMap: string;
}

export interface RunRequest {
  bundle: ToolCode;
  exportName: string;
  email: SandboxEmail;
  /** Judges the tool by this one of its own tests, in place of handing its effects back. */
  test?: number;
  limits: RunLimits;
  capabilities: Readonly<Record<string, Capability>>;
  /** Values that `context.secret` returns: the granted ones only, null where one is granted but not set. */
  secrets: Readonly<Record<string, string | null>>;
  /** 32 hex digits, the same whenever this run is repeated: what `context.random` begins with. Default: all 0. */
  randomSeed?: string;
  /** Default: now. */
  nowMs?: number;
  /** Runs with the same key (an inbox) share their part of the pool; keys take turns. */
  fairnessKey: string;
  signal: AbortSignal;
}

/** What a mail of a tool says, as plain data. */
export interface PlainContent {
  text?: string | undefined;
  html?: string | undefined;
  subject?: string | undefined;
  attachments?: { filename: string; contentBase64: string; contentType?: string | undefined }[] | undefined;
}

/** As the tool wrote them: whether they are addresses is not said yet. */
interface PlainRecipients {
  to: string[];
  cc?: string[] | undefined;
  bcc?: string[] | undefined;
}

/**
 * An effect that a run states, as plain data. `at` is ISO 8601: not before then. `place` is what stands before its keys
 * where the tool stated it, such as `[1].send.`; absent where nothing does.
 */
export type PlainEffect = PlainContent & { at?: string | undefined; place?: string | undefined } & (
    | { kind: 'reply' }
    | ({ kind: 'send' } & PlainRecipients)
    | ({ kind: 'forward' } & PlainRecipients)
  );

/** Whose state: the inbox's, or the conversation's. */
export type StateScope = 'inbox' | 'thread';
/** Keys and JSON values. */
export type StateEntries = readonly (readonly [key: string, value: unknown])[];
/** Documents that a run has changed, whole. */
export interface StateChanges {
  inbox?: StateEntries | undefined;
  thread?: StateEntries | undefined;
}

/** An earlier mail of a conversation, before it becomes a `ThreadEmail` of the tool's own realm. */
export interface PlainThreadEmail {
  direction: 'inbound' | 'outbound';
  from: Mailbox | null;
  to: readonly Mailbox[];
  subject: string;
  text: string;
  newText: string;
  messageId: string | null;
  /** ISO 8601. */
  at: string;
}

/** What a run that ended well leaves. */
export interface RunEnd {
  effects: PlainEffect[];
  state: StateChanges;
}

export type FailureReason =
  /** It threw or rejected, when called or while its module was evaluated. */
  | 'threw'
  | 'timeout'
  | 'cpu'
  | 'memory'
  /** The child process died of it. */
  | 'crashed'
  | 'invalid-result'
  | 'result-too-large'
  | 'log-flood'
  /** Too many host calls, or too many at once. */
  | 'call-flood';

export type RunResult =
  | ({ status: 'returned'; logs: string[]; durationMs: number } & RunEnd)
  | {
      status: 'failed';
      reason: FailureReason;
      /** For a person; with file, line and column of the tool's source where they are known. */
      message: string;
      logs: string[];
      durationMs: number;
    };

/** Of what is exported, the functions alone can be called and answer. */
export const exportKinds = ['function', 'generator', 'class', 'value'] as const;
export type ExportKind = (typeof exportKinds)[number];

/** What evaluating a bundle shows of it. */
export type Inspection =
  | {
      status: 'inspected';
      exports: { name: string; kind: ExportKind }[];
      settings: unknown;
      tests: unknown;
    }
  | { status: 'failed'; reason: FailureReason; message: string };

export interface PoolStats {
  readonly children: number;
  /** Runs that wait for a child. */
  readonly waiting: number;
  /** Children that were started since the pool was made. */
  readonly starts: number;
}

export interface SandboxPool {
  /** Warms the pool; resolves when a first child is ready. `run` does it by itself. */
  start(): Promise<void>;
  /**
   * @throws the signal's reason; what a capability threw and the tool is not at fault for; MillraceError `sandbox.queue_full`, `sandbox.closed`, `sandbox.unavailable`
   *   (transient).
   */
  run(request: RunRequest): Promise<RunResult>;
  /** Evaluates a bundle and reads what it exports. Throws as `run` does. */
  inspect(bundle: RunRequest['bundle'], signal?: AbortSignal): Promise<Inspection>;
  stats(): PoolStats;
  /** Kills the children; what still runs or waits is rejected as `sandbox.closed`. */
  close(): Promise<void>;
}
