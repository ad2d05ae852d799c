/**
 * `millrace secrets rotate-webhook-secret`: a new signing secret beside the old one, and, once everything runs
 * with both, the old one dropped. No event is lost on the way: until the new secret is known to the daemon,
 * Resend delivers by the old webhook, and tries the new one again; what comes by both is one event.
 *
 * Resend has no call that changes a secret. A second webhook with the same endpoint and events is made, and
 * at the end the first is removed. A command that broke off is given again: it takes up the webhook that
 * was made.
 */
import { MillraceError } from '../platform/errors.ts';
import { Secret } from '../platform/secret.ts';
import type { ResendAccount, WebhookEvents } from './resend-account.ts';
import { decryptedSecrets } from './secrets-file.ts';
import { setSecret } from './secrets-work.ts';
import type { SecretsDeps } from './secrets-work.ts';

export interface WebhookAtResend {
  readonly account: Pick<ResendAccount, 'findWebhooks' | 'createWebhook' | 'removeWebhook'>;
  readonly endpoint: string;
}

const NAME = 'RESEND_WEBHOOK_SECRET';

/**
 * @param source where the new secret comes from: Resend, or a person who made a webhook there
 * @throws MillraceError `secrets.rotation_open`, `secrets.no_webhook` (invalid); what Resend and SOPS throw
 */
export async function beginRotation(
  deps: SecretsDeps,
  source: { resend: WebhookAtResend } | { value: Secret },
): Promise<void> {
  const old = await currentSecrets(deps);
  if (old.length > 1)
    throw new MillraceError('invalid', 'secrets.rotation_open', 'a rotation is under way already', {
      hint: 'End it first: millrace secrets rotate-webhook-secret --finish',
    });
  const fresh = 'value' in source ? source.value.reveal() : await newWebhookSecret(source.resend, old);
  await change(deps, [fresh, ...old.filter((secret) => secret !== fresh)]);
  deps.print(
    'Both secrets count now. Bring it to the server and restart; when it answers, end the rotation:',
  );
  deps.print('millrace secrets rotate-webhook-secret --finish');
}

/**
 * Keeps the newest secret alone, and at Resend the webhook that has it.
 * @param resend null: a person removes the old webhook
 */
export async function finishRotation(deps: SecretsDeps, resend: WebhookAtResend | null): Promise<void> {
  const secrets = await currentSecrets(deps);
  if (secrets.length <= 1) return deps.print('No rotation is under way.');
  const webhooks = resend ? await resend.account.findWebhooks(resend.endpoint) : [];
  // Earlier setups put the secret of the webhook that they made behind one that no webhook had any more.
  const newest =
    secrets.find((one) => webhooks.some((webhook) => webhook.signingSecret === one)) ?? secrets[0]!;
  if (resend) {
    // Without the new one there, removing the old one would stop all mail.
    if (!webhooks.some(({ signingSecret, isEnabled }) => signingSecret === newest && isEnabled))
      throw noWebhook('no enabled webhook at Resend has the new secret');
    for (const { id, signingSecret } of webhooks)
      if (signingSecret !== newest && secrets.includes(signingSecret)) await resend.account.removeWebhook(id);
  }
  await change(deps, [newest]);
  deps.print(resend ? 'The old webhook is gone.' : 'Remove the old webhook at Resend.');
}

async function newWebhookSecret(
  { account, endpoint }: WebhookAtResend,
  known: readonly string[],
): Promise<string> {
  const webhooks = await account.findWebhooks(endpoint);
  const unused = webhooks.find(({ signingSecret }) => !known.includes(signingSecret));
  if (unused) return unused.signingSecret;
  const model = webhooks[0];
  if (!model) throw noWebhook(`there is no webhook for ${endpoint} at Resend`);
  return (await account.createWebhook(endpoint, model.events as WebhookEvents)).signingSecret;
}

async function currentSecrets({ sops, file }: SecretsDeps): Promise<string[]> {
  const secrets = await decryptedSecrets(sops, file);
  return secrets.get(NAME)?.split(/\s+/) ?? [];
}

async function change(deps: SecretsDeps, secrets: readonly string[]): Promise<void> {
  await setSecret(deps, NAME, new Secret(secrets.join(' ')));
}

function noWebhook(message: string): MillraceError {
  return new MillraceError('invalid', 'secrets.no_webhook', message, {
    hint: 'Make one on Resend’s page, or by setup.sh, and give its secret: millrace secrets rotate-webhook-secret --stdin',
  });
}
