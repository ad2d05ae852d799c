/** `millrace send`: against the mailbox over HTTP, and once as the command itself. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeDaemonFile } from '../../src/admin/daemon-file.ts';
import { sendMessage } from '../../src/admin/send.ts';
import type { SendOptions } from '../../src/admin/send.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { DOMAIN, TOKEN, reverser, startMailbox } from './mailbox-world.ts';
import type { MailboxWorld } from './mailbox-world.ts';
import { programEnvironment } from '../program-environment.ts';

let world: MailboxWorld;

beforeEach(async () => {
  world = await startMailbox({
    reverser,
    silent: () => ({ kind: 'skipped', reason: 'no-reply-from-tool' }),
    broken: () => {
      throw new MillraceError('permanent', 'tool.threw', 'TypeError: no', { hint: 'Mend it.' });
    },
  });
});

afterEach(() => world[Symbol.asyncDispose]());

const emlTo = (address: string): Buffer =>
  Buffer.from(
    `From: ann@sender.example\r\nTo: ${address}\r\nSubject: Hi\r\nMessage-ID: <m1@sender.example>\r\n\r\nHello world`,
  );

async function send(
  raw: Uint8Array,
  options: Partial<SendOptions> = {},
  daemon: { url?: string; token?: string } = {},
) {
  const printed: string[] = [];
  const deps = {
    daemon: { url: world.url, token: TOKEN, pid: process.pid, ...daemon },
    print: (text: string): void => void printed.push(text),
  };
  await sendMessage(deps, raw, { wait: true, ...options });
  return printed.join('\n');
}

describe('send', () => {
  it('prints the reply with its headers', async () => {
    const printed = await send(emlTo(`reverser@${DOMAIN}`));
    expect(printed).toMatch(/^emailId: [\w-]{36}\n/);
    expect(printed).toContain('Subject: Re: Hi');
    expect(printed).toContain('In-Reply-To: <m1@sender.example>');
    expect(printed).toContain('\n\ndlrow olleH');
    expect(printed).toContain('reverser logged:\n  started');
  });

  it('sends to whom it is told', async () => {
    expect(await send(emlTo('list@else.example'), { to: `reverser@${DOMAIN}` })).toContain('dlrow olleH');
  });

  it('gives the reason where there is no reply', async () => {
    expect(await send(emlTo(`silent@${DOMAIN}`))).toContain('Deliberately not answered: no-reply-from-tool');
  });

  it('does not wait when it is told so', async () => {
    expect(await send(emlTo(`reverser@${DOMAIN}`), { wait: false })).toMatch(/^emailId: [\w-]{36}$/);
  });

  it.each([
    [
      'a mail that was parked',
      `broken@${DOMAIN}`,
      {},
      { kind: 'permanent', code: 'send.parked', hint: 'Mend it.' },
    ],
    ['a mail for others', 'a@b.example', {}, { kind: 'invalid', code: 'local_mail.no_recipient' }],
    ['a wrong token', `reverser@${DOMAIN}`, { token: 'x' }, { kind: 'invalid', code: 'admin.unauthorized' }],
    [
      'no daemon',
      `reverser@${DOMAIN}`,
      { url: 'http://127.0.0.1:9' },
      { kind: 'invalid', code: 'admin.daemon_not_running' },
    ],
  ])('fails for %s', async (_, to, daemon, error) => {
    await expect(send(emlTo(to), {}, daemon)).rejects.toMatchObject(error);
  });
});

describe('the command', () => {
  const run = (args: string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      const command = ['src/main.ts', 'send', ...args];
      const env = programEnvironment({ DATA_DIR: world.directory });
      execFile(process.execPath, command, { env }, (error, stdout, stderr) =>
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
      );
    });

  it('exits with 0 for an answer, 1 for a parked mail, 2 for what a person has to mend', async () => {
    const file = join(world.directory, 'mail.eml');
    writeFileSync(file, emlTo('somebody@else.example'));
    expect(await run([file])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('npm start') as string,
    });
    writeDaemonFile(world.directory, { url: world.url, token: TOKEN, pid: process.pid });
    expect(await run([file, '--to', `reverser@${DOMAIN}`])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('dlrow olleH') as string,
      stderr: '',
    });
    expect(await run([file, '--to', `broken@${DOMAIN}`])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('TypeError: no') as string,
    });
    expect(await run([join(world.directory, 'none.eml')])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('ENOENT') as string,
    });
  });
});
