/**
 * What a tool author sees: `import type { Context, Email } from 'millrace'`.
 * Everything here exists inside the sandbox, in the tool's own realm.
 */

/** A name and an address; the name is empty where the sender gave none. */
export interface Mailbox {
  readonly name: string;
  readonly address: string;
}

/** One part of the message that is not its text. The bytes are fetched when asked for. */
export interface Attachment {
  /** As the sender wrote it, without any path; null where there is none. Not safe as a path. */
  readonly filename: string | null;
  /** Lower case, without parameters, such as `image/png`. */
  readonly contentType: string;
  readonly disposition: 'attachment' | 'inline' | null;
  /** Without angle brackets. */
  readonly contentId: string | null;
  /** Bytes, decoded. */
  readonly size: number;
  bytes(): Promise<Uint8Array>;
  /** The bytes read as UTF-8. */
  text(): Promise<string>;
}

/** Header fields; names in any case. */
export interface EmailHeaders extends Iterable<readonly [name: string, value: string]> {
  /** The first field of this name, unfolded and decoded (RFC 2047), or null. */
  get(name: string): string | null;
  /** All fields of this name, in order. */
  getAll(name: string): string[];
  has(name: string): boolean;
}

/** An earlier mail of a conversation: one that came into this inbox, or one of ours. */
export interface ThreadEmail {
  readonly direction: 'inbound' | 'outbound';
  readonly from: Mailbox | null;
  readonly to: readonly Mailbox[];
  readonly subject: string;
  /** At most 10,000 characters. */
  readonly text: string;
  /** `text` without quoted history and signature. */
  readonly newText: string;
  /** Null for one of ours. */
  readonly messageId: string | null;
  /** When it reached us, or left the tool. */
  readonly date: Date;
}

/** Whether the author of an email proved to be who it says. */
export interface Authentication {
  /**
   * `pass`: it carries a DKIM signature that holds, of the author's own domain (as DMARC aligns them). `none`: it is not
   * signed at all. What a header field of the email claims about it counts for nothing.
   */
  readonly result: 'pass' | 'fail' | 'none';
  /** Of the author, in lower-case ASCII; null where there is not exactly one. */
  readonly domain: string | null;
  /** For a person: by whom it is signed, or why that does not count. */
  readonly reason: string;
}

/** An email as it reached one inbox. */
export interface Email {
  /** The provider's id of this inbound email. */
  readonly id: string;
  /** The inbox that it reached: the local part without its tag, lower case. */
  readonly inbox: string;
  /** `news` for mail to `inbox+News@…`: in lower case, as all of the address; otherwise null. */
  readonly tag: string | null;
  /** The author as the message claims; null where there is none. Anyone can write it: see `authentication`. */
  readonly from: Mailbox | null;
  readonly replyTo: readonly Mailbox[];
  readonly to: readonly Mailbox[];
  readonly cc: readonly Mailbox[];
  /** Decoded, on one line; empty where there is none. */
  readonly subject: string;
  /** The plain text; made from the HTML where the message has no plain text; empty where it has neither. */
  readonly text: string;
  /** `text` without quoted history and signature. */
  readonly newText: string;
  readonly html: string | null;
  readonly headers: EmailHeaders;
  readonly attachments: readonly Attachment[];
  /** The Message-ID with its angle brackets, or null. */
  readonly messageId: string | null;
  /** Message-IDs of the conversation so far, oldest first. */
  readonly references: readonly string[];
  /** What the sender claims; null where it is missing or no date. */
  readonly date: Date | null;
  /**
   * Earlier mails of the conversation in this inbox, oldest first: the last 20, of those that whoever would get a
   * reply to this email wrote or got. A sender chooses which conversation a mail belongs to, and nobody proves it.
   */
  thread(): Promise<readonly ThreadEmail[]>;
  /**
   * Looks whether `from` is proven, by the raw message and the DNS. To let nobody else in, name who may write in
   * `settings.from`. While the DNS does not answer, the run is broken off and repeated, for about a minute; then the result
   * is `fail`, and its reason begins with `temperror`.
   */
  authentication(): Promise<Authentication>;
}

/**
 * A small store of JSON values: at most 256 keys and 32 KiB. What a run changes is kept when it has ended well,
 * together with what it sends, and once: a run that fails, or is repeated after a crash, leaves no trace of the
 * attempt before.
 */
export interface State {
  /** A copy of what is kept under this key; undefined where there is nothing. */
  get<T = unknown>(key: string): Promise<T | undefined>;
  /** Keeps a copy of a JSON value; throws for what is none, or too much. */
  set(key: string, value: unknown): Promise<void>;
  /** Whether there was something. */
  delete(key: string): Promise<boolean>;
  keys(): Promise<string[]>;
}

/** What a tool may do besides computing. */
export interface Context {
  /** The Web's `fetch`, to the hosts that `settings.hosts` grants. */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
  /** The value of a secret that `settings.secrets` grants by name; throws for any other. */
  readonly secret: (name: string) => string;
  /** Lines on the run's record. */
  readonly log: (...values: unknown[]) => void;
  /** The time at which this run began. */
  readonly now: () => Date;
  /** A number from 0 up to 1: another for each email, the same when its run is repeated. Not for secrets: see `crypto`. */
  readonly random: () => number;
  /**
   * What this inbox keeps from one email to the next, and under `state.thread` what its conversation keeps. The
   * emails of an inbox whose tool touches the inbox's own state are handled one after another; with the state of
   * conversations alone they are not. A conversation's is forgotten `RETENTION_DAYS` after its last change.
   */
  readonly state: State & { readonly thread: State };
  /**
   * States a reply, as returning one does. It leaves when the run has ended well, in the order in which it was
   * stated and before what is returned; a run that fails sends nothing.
   */
  readonly reply: (reply: string | Reply) => void;
  /** States a mail to somebody else: see `Send`. */
  readonly send: (mail: Send) => void;
  /** States that this email is to be forwarded: to these addresses, or as `Forward` says. */
  readonly forward: (to: Recipients | Forward) => void;
}

/** A file to send along. */
export interface OutgoingAttachment {
  filename: string;
  content: string | Uint8Array;
  contentType?: string;
}

/** An address, `Ann <ann@example.net>`, or a mailbox such as `email.from`; or several of these. */
export type Recipients = string | Mailbox | readonly (string | Mailbox)[];

/** An answer to the sender. At least one of `text`, `html` and `attachments` is there. */
export interface Reply {
  /** Where it is missing, it is made from `html`. */
  text?: string;
  /** A string, or what JSX and the `html` template make (which escape what they are given). */
  html?: string | { toString(): string | Promise<string> };
  attachments?: OutgoingAttachment[];
  /** Default: the subject of the email with one `Re:`. */
  subject?: string;
  /**
   * Not before this time: a Date, or ISO 8601 with its zone. At most two thirds of `RETENTION_DAYS` ahead (60
   * days where nothing else is set). It goes out also when the daemon was stopped in between, or the tool is gone.
   */
  at?: Date | string;
}

/**
 * A mail to somebody else, from the address of the inbox. At least one of `text`, `html` and `attachments` is
 * there. At most 50 addresses, none of them one of our own; how many a day, docs/tools.md says.
 */
export interface Send extends Reply {
  to: Recipients;
  cc?: Recipients;
  bcc?: Recipients;
  /** Default: the subject of the email without `Re:`. */
  subject?: string;
}

/** The email itself for somebody else, with its attachments; an answer to it goes to the email's author. */
export interface Forward {
  to: Recipients;
  cc?: Recipients;
  bcc?: Recipients;
  /** Stands before the email. */
  text?: string;
  /** The same, for those who read HTML. */
  html?: Reply['html'];
  /** Default: the subject of the email with one `Fwd:`. */
  subject?: string;
  /** As of a `Reply`. */
  at?: Date | string;
}

/** Several effects at once, in the order of these keys. */
export interface Effects {
  reply?: string | Reply | readonly (string | Reply)[];
  send?: Send | readonly Send[];
  /** Addresses, one `Forward`, or a list of either, each of them a mail of its own. */
  forward?: string | Mailbox | Forward | readonly (string | Mailbox | Forward)[];
  /** For those of them that name no time themselves. */
  at?: Date | string;
}

/** An object with `to` is a mail to somebody else, one with `reply`, `send` or `forward` says itself, any other is a reply. */
export type Effect = Reply | Send | Effects;

/** A string is the reply's text; nothing is no reply. At most 100 effects. */
export type ToolResult = string | Effect | readonly Effect[] | null | undefined | void;

export type Tool = (email: Email, context: Context) => ToolResult | Promise<ToolResult>;

/** Limits and grants of one tool, or (under `default`) of all that have none of their own. */
export interface ToolSettings {
  /**
   * Who may write to it: addresses, and whole domains such as `@example.com` (without those below it). Others are not
   * answered, and the tool does not run; nor does it for who only claims to be on the list. Default: everybody.
   */
  from?: readonly string[];
  /**
   * What becomes of an email whose author is not proven (`email.authentication`): the tool runs all the same (the
   * default without `from`), it is not answered (the default with `from`), or it is parked for a person to look at.
   */
  unauthenticated?: 'run' | 'skip' | 'park';
  /** Hosts that `fetch` may reach over https, such as `api.example.com`; `http://127.0.0.1:5000` grants exactly that origin. */
  hosts?: readonly string[];
  /** Names of secrets that it may read: `TOOL_SECRET_<NAME>` in the daemon's environment. */
  secrets?: readonly string[];
  /** Wall clock for one run, in milliseconds (default 10,000, ceiling 300,000). */
  timeoutMs?: number;
  /** CPU time of one run, in milliseconds (default 10,000, ceiling 60,000): waiting costs none. */
  cpuLimitMs?: number;
  /** Memory of the isolate, in MiB (default 64, ceiling 512). */
  memoryLimitMb?: number;
  /** Calls of `fetch` in one run (default 50, ceiling 1,000). */
  maxFetches?: number;
  /** What one run may log, in bytes (default 65,536, ceiling 262,144). */
  maxLogBytes?: number;
}

/** `export const settings: Settings = { translator: { hosts: ['libretranslate.com'] } }` */
export type Settings = Readonly<Record<string, ToolSettings>>;

/** The email that a test hands to a tool: what is left out is as in a plain mail from somebody. */
export interface TestEmail {
  /** An address, or a name and an address. Default: `{ name: 'Ann', address: 'ann@example.net' }`. */
  from?: string | Mailbox;
  /** Default: `Test`. */
  subject?: string;
  /** Default: empty. */
  text?: string;
  /** Default: `text`. */
  newText?: string;
  html?: string;
  /** As for mail to `inbox+tag@…`. */
  tag?: string;
  headers?: Readonly<Record<string, string>>;
  /** What `email.authentication` says. Default: `none`. Whom the settings let in is not asked in a test. */
  authentication?: Authentication['result'];
  attachments?: readonly { filename: string; content: string; contentType?: string }[];
  /** ISO 8601. */
  date?: string;
}

/** A mail to somebody else that is to come of it: at least the keys that are named must fit one. */
export interface ExpectedMail {
  /** One of its recipients, as the tool wrote it. */
  to?: string;
  subject?: string;
  /** Exactly. */
  text?: string;
}

/**
 * What is to come of it: of the first reply one or several of the first three, of everything else what is named;
 * `noReply` in place of the first three, `throws` alone.
 */
export interface Expected {
  /** The reply's text, exactly; its HTML where it has no text. */
  text?: string;
  /** A part of it. */
  contains?: string;
  matches?: RegExp;
  /** The tool answers nothing. */
  noReply?: true;
  /** It throws; a string is a part of the error's message. */
  throws?: true | string;
  send?: ExpectedMail;
  forward?: ExpectedMail;
  /** What the inbox keeps afterwards, under these keys; null for nothing. */
  state?: Readonly<Record<string, unknown>>;
  /** What the conversation keeps afterwards. */
  threadState?: Readonly<Record<string, unknown>>;
}

/** One test of a tool. It runs in the sandbox, without a network. */
export interface Test {
  /** What it shows, for the message when it does not hold. */
  name?: string;
  email: TestEmail;
  expect: Expected;
  /** What `context.secret` answers, for secrets that the settings grant. */
  secrets?: Readonly<Record<string, string>>;
  /** What the inbox keeps before. */
  state?: Readonly<Record<string, unknown>>;
  /** What the conversation keeps before. */
  threadState?: Readonly<Record<string, unknown>>;
  /** Earlier mails of the conversation, oldest first; `sent` ones are ours. */
  thread?: readonly { from?: string | Mailbox; subject?: string; text: string; sent?: true; date?: string }[];
  /** ISO 8601: what `context.now` says. */
  now?: string;
}

/**
 * By name of exported function; tools whose tests fail do not go live.
 * `export const tests: Tests = { reverser: [{ email: { text: 'abc' }, expect: { text: 'cba' } }] }`
 */
export type Tests = Readonly<Record<string, readonly Test[]>>;

/**
 * HTML in which every value is escaped: ``html`<p>${email.subject}</p>` ``; `raw` puts a string in as HTML. Whatever it is
 * made with: before it is sent, tags that are not for mail go, what they hold stays, and scripts and styles go whole.
 */
export { html, raw } from 'hono/html';
