/**
 * All the work on a mail that Millrace does, for the engine of a peer to carry: the link, the download of the raw
 * message, MIME, the guard, the tool in its sandbox, the composed reply, the send. It is made of Millrace's own parts
 * under the daemon's settings, so that what is left between two systems is their engines.
 *
 * What a step finds is JSON, and the engine keeps it in its own way before the next step begins: the raw message, so
 * that it need not be fetched again; the request, so that a repeated send says the same under the same key.
 */
import { inboxOf } from '../../src/mail/address.ts';
import type { ProviderRequest } from '../../src/mail/email.ts';
import { noReplyReason } from '../../src/mail/guard.ts';
import { decodeHeaderValue } from '../../src/mail/header-field.ts';
import { mailWorkInPlace } from '../../src/mail/mail-work.ts';
import { parseMessage } from '../../src/mail/message.ts';
import { createResendInbound } from '../../src/ingest/resend-inbound.ts';
import { createResendOutbound } from '../../src/outbox/resend-outbound.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { createRateGate } from '../../src/platform/rate-gate.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import { createCapabilities } from '../../src/runner/capabilities.ts';
import { createSandboxPool } from '../../src/runner/sandbox/pool.ts';
import { toolRevision } from '../../src/runner/tool-revision.ts';
import { runLimits, settingsFor } from '../../src/runner/tool-settings.ts';

/** Of the webhook's `data`. */
interface ReceivedMail {
  readonly email_id: string;
  readonly to: readonly string[];
}

/** Does the work, or gives what it found before; the engine's part. */
type Step = <T>(name: 'raw' | 'request' | 'send', work: () => Promise<T>) => Promise<T>;

/** @returns `wholeJob`, which resolves to the provider's id of the reply, or to null where there is none */
export async function createWholeJob(options: {
  resendUrl: string;
  apiKey: string;
  toolsPath: string;
  domain: string;
}): Promise<(mail: ReceivedMail, step: Step) => Promise<string | null>> {
  const clock = systemClock;
  const resend = { apiKey: options.apiKey, baseUrl: options.resendUrl };
  const gate = createRateGate(clock);
  const inbound = createResendInbound({ clock, gate }, resend);
  const outbound = createResendOutbound({ clock, gate }, resend);
  const domains = [options.domain];
  const pool = createSandboxPool({ clock, log: createLog('silent') });
  const { bundle, toolOf } = toolRevision(await bundleTools({ directory: options.toolsPath, clock, pool }));

  async function replyTo(mail: ReceivedMail, raw: Uint8Array): Promise<ProviderRequest | null> {
    const { inbox, tag, address } = inboxOf(mail.to[0] ?? '', domains)!;
    const email = await parseMessage(raw);
    if (noReplyReason(email, { domains, address }) !== null) return null;
    const exportName = toolOf.get(inbox!)!;
    const settings = settingsFor(bundle.settings, exportName);
    const headers = email.headers.map(([name, value]): [string, string] => [name, decodeHeaderValue(value)]);
    const files = (): Promise<Uint8Array[]> => mailWorkInPlace.allAttachmentBytes(raw);
    const run = await pool.run({
      bundle,
      exportName,
      email: { ...email, headers, id: mail.email_id, inbox: inbox!, tag },
      limits: runLimits(settings),
      ...createCapabilities({
        settings,
        secrets: {},
        attachmentBytes: async (index) => (await files())[index]!,
      }),
      fairnessKey: inbox!,
      signal: new AbortController().signal,
    });
    if (run.status === 'failed') throw new Error(run.message);
    const [effect] = run.effects;
    if (!effect) return null;
    const composition = { effect, email, inbox: inbox!, inboxAddress: address, domains, files: [] };
    return (await mailWorkInPlace.compose(composition)).request;
  }

  return async function wholeJob(mail, step) {
    const { signal } = new AbortController();
    const raw = await step('raw', async () => {
      const bytes = await inbound.rawMessage(mail.email_id, signal);
      return Buffer.from(bytes).toString('base64');
    });
    const request = await step('request', () => replyTo(mail, Buffer.from(raw, 'base64')));
    if (!request) return null;
    return step('send', async () => {
      const { providerId } = await outbound.send(request, `reply/${mail.email_id}`, signal);
      return providerId;
    });
  };
}
