/**
 * Fetches the raw message of an inbound email from Resend: one API call for a signed link, one download.
 * Nothing is retried here but an expired link; every other failure is told apart for the stage that calls.
 *
 * The bytes are complete or there is an error: a transfer that breaks off, stalls or exceeds the limit
 * yields nothing, nor does the page of a proxy, since what is returned is kept for good. Room for them is
 * reserved before they are read, and while that takes no time limit runs.
 */
import type { IncomingMessage } from 'node:http';
import { classifyResendError } from '../mail/resend-errors.ts';
import type { Clock } from '../platform/clock.ts';
import { createDeadline } from '../platform/deadline.ts';
import type { Deadline } from '../platform/deadline.ts';
import { MillraceError } from '../platform/errors.ts';
import { sendRequest } from '../platform/http-request.ts';
import { answerOf } from '../platform/rate-gate.ts';
import type { RateGate } from '../platform/rate-gate.ts';
import { createResendClient } from '../platform/resend-client.ts';
import type { FetchOptions, Reserve } from './kept-mail.ts';

export interface ResendInbound {
  /**
   * The raw MIME of an inbound email.
   * @throws MillraceError
   *   permanent: `resend.invalid_email_id`, `resend.content_too_large`, `resend.rejected`;
   *   transient: `resend.content_missing` (not there yet, or no longer), `resend.content_above_quota`,
   *   `resend.download_failed`, and what `classifyResendError` names;
   *   or the signal's reason.
   */
  rawMessage(emailId: string, signal: AbortSignal, options?: FetchOptions): Promise<Uint8Array>;
}

export interface ResendInboundOptions {
  /** Needs full access: a sending key may not read. */
  apiKey: string;
  baseUrl?: string;
  /** For the API call and the begin of the download, and as much again for its bytes (default 30 s). */
  timeoutMs?: number;
  /** Without a byte for so long, a download has failed (default 10 s). */
  idleTimeoutMs?: number;
  /** Default 50 MB: above what Resend lets in. */
  maxBytes?: number;
}

interface Limits {
  readonly timeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly maxBytes: number;
}

/** The SDK puts the id into a path as it is. */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** How often a link is asked for, if the one before had expired. */
const MAX_LINKS = 2;
const MAX_REDIRECTS = 3;
/** Of an answer that does not say how long it is, before there must be room for the largest. */
const FIRST_BYTES = 256 * 1024;
/** How much of the bytes tells whether they are a mail; what a server adds stands on top. */
const HEAD_CHARS = 64 * 1024;
/** What is served, or begins, like this is the page or the error of some server, unless a header stands in it. */
const PAGE_TYPE = /^(?:text\/html|application\/(?:json|xml)|text\/xml)/i;
const PAGE_START = /^\s*[<{[]/;
/** A mail that came over SMTP has several of them. */
const MAIL_FIELD = /^(?:from|to|subject|date|received|return-path|message-id|mime-version)[ \t]*:/im;
/** What a signed link answers when its time is over, with one store or another. */
const EXPIRED_STATUSES: readonly number[] = [400, 401, 403, 404, 410];

export function createResendInbound(
  { clock, gate }: { clock: Clock; gate: RateGate },
  options: ResendInboundOptions,
): ResendInbound {
  const resend = createResendClient(options);
  const limits: Limits = {
    timeoutMs: options.timeoutMs ?? 30_000,
    idleTimeoutMs: options.idleTimeoutMs ?? 10_000,
    maxBytes: options.maxBytes ?? 50_000_000,
  };
  // A stand-in speaks http; the real service never gives out such a link.
  const insecureAllowed = options.baseUrl?.startsWith('http:') ?? false;

  const downloadLink = async (emailId: string, signal: AbortSignal): Promise<URL> => {
    // Without `cid`, inline images come inside the HTML, which nobody reads here.
    const { data, error, headers } = await resend.emails.receiving.get(
      emailId,
      { html_format: 'cid' },
      { signal },
    );
    gate.observe(headers, answerOf(error));
    // By its status, too: a name may be new, or not be there.
    if (error?.name === 'not_found' || error?.statusCode === 404)
      throw contentMissing(emailId, 'Resend does not know it');
    // Neither is what the SDK makes of an error whose body is `null`.
    if (error || !data) throw classifyResendError(error ?? {}, headers);
    const link = data.raw?.download_url;
    if (!link) throw contentMissing(emailId, 'Resend has no raw message for it');
    return checkedLink(link, insecureAllowed);
  };

  return {
    async rawMessage(emailId, signal, { inbox = '', reserve = async () => {} } = {}) {
      if (!UUID.test(emailId))
        throw new MillraceError('permanent', 'resend.invalid_email_id', 'the email id is not a UUID');
      for (let links = 1; links <= MAX_LINKS; links += 1) {
        // Before the time starts: the wait for a turn is ours.
        await gate.enter(signal, `receiving/${inbox}`);
        using deadline = createDeadline(clock, limits.timeoutMs, signal);
        try {
          const link = await downloadLink(emailId, deadline.signal);
          using idle = createDeadline(clock, limits.idleTimeoutMs, deadline.signal);
          const response = await openDownload(link, { signal: idle.signal, insecureAllowed });
          if (response) return await readWhole(response, limits.maxBytes, pausing([deadline, idle], reserve));
        } catch (error) {
          throw asMillraceError(error, signal);
        }
      }
      throw new MillraceError('transient', 'resend.download_failed', 'the download link was refused twice');
    },
  };
}

/** Room without a time limit; the limits begin anew behind it, and the last of them with every byte that comes. */
function pausing(deadlines: readonly [Deadline, Deadline], reserve: Reserve): Room {
  return {
    async reserve(bytes) {
      for (const deadline of deadlines) deadline.pause();
      await reserve(bytes);
      for (const deadline of deadlines) deadline.restart();
    },
    arrived: () => deadlines[1].restart(),
  };
}

interface Room {
  reserve: Reserve;
  /** Called for all that arrives. */
  arrived(): void;
}

/** The answer that has the bytes, or null if the link has expired. */
async function openDownload(
  link: URL,
  { signal, insecureAllowed }: { signal: AbortSignal; insecureAllowed: boolean },
): Promise<IncomingMessage | null> {
  let response = await sendRequest(link, { signal });
  for (let redirects = 0; redirects < MAX_REDIRECTS; redirects++) {
    const { statusCode = 0, headers } = response;
    if (statusCode < 300 || statusCode > 399 || headers.location === undefined) break;
    response.destroy();
    const next = URL.parse(headers.location, link.href)?.href ?? '';
    response = await sendRequest(checkedLink(next, insecureAllowed), { signal });
  }
  const { statusCode: status = 0 } = response;
  const { 'content-encoding': encoding = 'identity' } = response.headers;
  if (status === 200 && encoding === 'identity') return response;
  response.destroy();
  if (status === 200)
    throw new MillraceError('transient', 'resend.download_failed', `the download is encoded (${encoding})`);
  if (EXPIRED_STATUSES.includes(status)) return null;
  throw new MillraceError('transient', 'resend.download_failed', `the download answered ${status}`);
}

/** All bytes. Less than was announced, or a broken connection, is an error of the stream. */
async function readWhole(response: IncomingMessage, maxBytes: number, room: Room): Promise<Uint8Array> {
  const announced = Number(response.headers['content-length'] ?? NaN);
  if (announced > maxBytes) {
    response.destroy();
    throw tooLarge(maxBytes);
  }
  let hasRoom = !Number.isNaN(announced);
  if (hasRoom) await room.reserve(announced);
  // A copy in the end would be as much again.
  let bytes: Buffer = Buffer.allocUnsafe(hasRoom ? announced : FIRST_BYTES);
  let size = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    room.arrived();
    if (size + chunk.byteLength > maxBytes) throw tooLarge(maxBytes);
    if (size + chunk.byteLength > bytes.length) {
      if (!hasRoom) await room.reserve(maxBytes);
      hasRoom = true;
      bytes = grown(bytes, Math.min(maxBytes, 2 * (size + chunk.byteLength)));
    }
    bytes.set(chunk, size);
    size += chunk.byteLength;
  }
  if (size === 0) throw new MillraceError('transient', 'resend.download_failed', 'the download was empty');
  if (isPage(bytes.subarray(0, size), response.headers['content-type'] ?? ''))
    throw new MillraceError('transient', 'resend.download_failed', 'what was downloaded is no email');
  return size === bytes.length ? bytes : Buffer.copyBytesFrom(bytes, 0, size);
}

/** What people send is odd, down to mails without a header: only what is surely something else is refused. */
function isPage(bytes: Buffer, contentType: string): boolean {
  const start = bytes.toString('latin1', 0, HEAD_CHARS);
  if (!PAGE_TYPE.test(contentType) && !PAGE_START.test(start)) return false;
  const [head = ''] = start.split(/\r?\n\r?\n/, 1);
  return !MAIL_FIELD.test(head);
}

function grown(bytes: Buffer, length: number): Buffer {
  const larger = Buffer.allocUnsafe(length);
  bytes.copy(larger);
  return larger;
}

function tooLarge(maxBytes: number): MillraceError {
  return new MillraceError('permanent', 'resend.content_too_large', `the email exceeds ${maxBytes} bytes`);
}

function checkedLink(link: string, insecureAllowed: boolean): URL {
  const url = URL.canParse(link) ? new URL(link) : undefined;
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && insecureAllowed)) return url;
  throw new MillraceError('transient', 'resend.download_failed', 'the download link is not an https URL');
}

/** What else is thrown is a failed transfer, unless the caller has ended it. */
function asMillraceError(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof MillraceError) return error;
  return new MillraceError('transient', 'resend.download_failed', 'the download broke off or took too long', {
    cause: error,
  });
}

function contentMissing(emailId: string, reason: string): MillraceError {
  return new MillraceError('transient', 'resend.content_missing', `email ${emailId}: ${reason}`, {
    hint: 'Resend shows an email a moment after its event, and keeps it for 30 days.',
  });
}
