/** `millrace suppressions` and its `lift`: what they ask the daemon, and what they print. */
import type { CommandDeps } from './rerun-commands.ts';
import type { LiftedSuppression, SuppressedAddress, SuppressionsPage } from './suppressions.ts';

type SuppressionCommandDeps = Pick<CommandDeps, 'client' | 'print'>;

/** Beyond, the command says so: the API can be asked for the rest. */
const MAX_LISTED = 10_000;

/** Oldest first. */
export async function printSuppressions(
  { client, print }: SuppressionCommandDeps,
  json: boolean,
): Promise<void> {
  const found: SuppressedAddress[] = [];
  let from: number | null = 0;
  while (from !== null && found.length < MAX_LISTED) {
    const page: SuppressionsPage = await client.get('/api/admin/suppressions', { from });
    found.push(...page.suppressions);
    from = page.next;
  }
  if (json) return print(JSON.stringify(found, null, 2));
  for (const suppression of found) print(suppressionText(suppression));
  const more = from === null ? '' : ' These are not all.';
  print(`No mail is sent to ${found.length === 1 ? '1 address' : `${found.length} addresses`}.${more}`);
}

export async function liftAddress({ client, print }: SuppressionCommandDeps, address: string): Promise<void> {
  const lifted: LiftedSuppression = await client.post('/api/admin/suppressions/lift', { address });
  if (lifted.status === 'not-suppressed') return print(`${lifted.address} is not suppressed.`);
  print(
    `Mail is sent to ${lifted.address} again, until it bounces the next time. ` +
      'What was not sent stays so: `millrace replay` answers it. Resend has a list of its own.',
  );
}

function suppressionText({ address, at, reason, message, ...of }: SuppressedAddress): string {
  const { cause, providerId, deliverySeqNum } = of;
  const mail = cause === null ? `mail ${providerId}` : `what ${cause.inbox} made of email ${cause.emailId}`;
  return [
    `${at}  ${address}  ${reason}${message === null ? '' : `: ${message}`}`,
    `  by ${mail}, delivery#${deliverySeqNum}`,
  ].join('\n');
}
