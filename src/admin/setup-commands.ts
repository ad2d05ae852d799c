/**
 * `millrace setup …`: what setup.sh asks of Millrace itself, with its options and help. Secrets come in by
 * standard input and go out by standard output, where they are in nobody's process list; words for a person
 * go to standard error.
 */
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import { systemClock } from '../platform/clock.ts';
import { MillraceError } from '../platform/errors.ts';
import { warnLine } from '../platform/terminal.ts';
import { createResendAccount } from './resend-account.ts';
import { setUpResend } from './resend-setup.ts';

interface ResendOptions {
  domain: string[];
  publicUrl: string;
  baseUrl?: string;
  wait: boolean;
}

export function addSetupCommands(program: Command): void {
  const setup = program.command('setup').description('what setup.sh does by way of Millrace itself');
  setup
    .command('resend')
    .description(
      'check the key that stands on standard input, the domain and the webhook; print its signing secret',
    )
    .requiredOption('--domain <name...>', 'the domains that receive mail')
    .requiredOption('--public-url <url>', 'where webhooks reach this server')
    .option('--base-url <url>', 'another server in place of Resend')
    .option('--wait', 'until Resend has seen the DNS records', false)
    .action(printWebhookSecret);
}

async function printWebhookSecret({ domain, publicUrl, baseUrl, wait }: ResendOptions): Promise<void> {
  const apiKey = (await text(process.stdin)).trim();
  if (apiKey === '')
    throw new MillraceError('invalid', 'setup.no_key', 'there is no key on standard input', {
      hint: 'Such as: millrace setup resend --domain example.com --public-url https://mail.example.com <key-file',
    });
  const account = createResendAccount(systemClock, { apiKey, ...(baseUrl === undefined ? {} : { baseUrl }) });
  const secret = await setUpResend(
    { account, clock: systemClock, tell: warnLine },
    { domains: domain, publicUrl: publicUrl.replace(/\/+$/, ''), waitForDns: wait },
  );
  if (secret !== null) process.stdout.write(`${secret}\n`);
}
