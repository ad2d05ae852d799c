/**
 * What a run may ask of the host: `fetch`, the bytes of an attachment, what it
 * keeps, the earlier mails of the conversation, whether its author is proven, and the secrets that were granted.
 * Made anew for each run, because the limits are a run's. The messages of refusals are shown to the tool.
 */
import { z } from 'zod';
import type { Authentication } from '../mail/authentication.ts';
import { orAborted } from '../platform/abort.ts';
import { MillraceError } from '../platform/errors.ts';
import type { FetchBudget } from './fetch-budget.ts';
import type {
  Capability,
  PlainThreadEmail,
  RunRequest,
  StateEntries,
  StateScope,
} from './sandbox/sandbox.ts';
import type { ToolSettings } from './tool-api.ts';
import { createToolFetch } from './tool-fetch.ts';
import type { Lookup } from './tool-fetch.ts';

/** Of an attachment at a time: the guest holds it once whole, not twice. */
const PIECE_BYTES = 2 * 1024 * 1024;

const NOT_LOOKED: Authentication = { result: 'none', domain: null, reason: 'nobody has looked' };

const pieceSchema = z.object({ index: z.int().nonnegative(), offset: z.int().nonnegative() });

const scopeSchema = z.object({ scope: z.enum(['inbox', 'thread']) });

/** What the guest's own code never sends comes from a tool that speaks past it. */
function parsedArgument<T>(schema: z.ZodType<T>, argument: unknown): T {
  const parsed = schema.safeParse(argument);
  if (parsed.success) return parsed.data;
  throw new MillraceError('permanent', 'capability.refused', 'the host was asked for what there is not');
}

/** What a `RunRequest` takes of it. */
export function createCapabilities(options: {
  settings: Pick<ToolSettings, 'hosts' | 'secrets' | 'maxFetches'>;
  /** All values there are; only those that the settings name are passed on. */
  secrets: Readonly<Record<string, string>>;
  attachmentBytes: (index: number) => Promise<Uint8Array>;
  /** Default: there is none. */
  readState?: (scope: StateScope) => Promise<StateEntries>;
  /** The earlier mails of the conversation. Default: there are none. */
  readThread?: () => Promise<PlainThreadEmail[]>;
  /** Whether the author of the email is proven. Default: nobody looks. */
  authenticate?: () => Promise<Authentication>;
  /** How names are resolved; the system's way unless a test has another. */
  lookup?: Lookup;
  /** What all runs of the process share. Default: this run has one of its own. */
  fetchBudget?: FetchBudget;
}): Pick<RunRequest, 'capabilities' | 'secrets'> {
  const { hosts = [], secrets: granted = [], maxFetches } = options.settings;
  const { readState = async () => [], readThread = async () => [] } = options;
  const { authenticate = async () => NOT_LOOKED } = options;
  const valueOf = (name: string): string | null =>
    Object.hasOwn(options.secrets, name) ? options.secrets[name]! : null;
  return {
    capabilities: {
      fetch: createToolFetch({ hosts, maxFetches, lookup: options.lookup, budget: options.fetchBudget }),
      attachment: createAttachmentReader(options.attachmentBytes),
      state: async (argument) => {
        const { scope } = parsedArgument(scopeSchema, argument);
        return { value: await readState(scope) };
      },
      thread: oneAtATime(async () => ({ value: await readThread() })),
      authentication: async () => ({ value: await authenticate() }),
    },
    secrets: Object.fromEntries(granted.map((name) => [name, valueOf(name)])),
  };
}

/** Hands out an attachment in pieces; the one asked for last is kept until another is. */
function createAttachmentReader(attachmentBytes: (index: number) => Promise<Uint8Array>): Capability {
  let last: { index: number; bytes: Promise<Uint8Array> } | null = null;
  return oneAtATime(async (argument) => {
    const { index, offset } = parsedArgument(pieceSchema, argument);
    if (last?.index !== index) last = { index, bytes: attachmentBytes(index) };
    const bytes = await last.bytes;
    return { value: { size: bytes.length }, bytes: bytes.subarray(offset, offset + PIECE_BYTES) };
  });
}

/** However much a run asks for at once, one large answer is on its way: the next is made when the sandbox has taken it. */
function oneAtATime(answer: Capability): Capability {
  let lastTurn = Promise.resolve();
  return async (argument, signal) => {
    const before = lastTurn;
    const { promise, resolve: release } = Promise.withResolvers<void>();
    lastTurn = before.then(() => promise);
    try {
      await orAborted(before, signal);
      return { ...(await answer(argument, signal)), release };
    } catch (error) {
      release();
      throw error;
    }
  };
}
