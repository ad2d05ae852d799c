/**
 * `millrace secrets` on a real file, by the real `sops`: the commands as a person gives them, on a copy of the
 * repository's file. Where it matters what is in a process, they run in one of their own.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { addSecretsCommands } from '../../src/admin/secrets-commands.ts';
import { PUBLIC_TEST_RECIPIENTS } from '../../src/admin/secrets-recipients.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { secretVariables } from '../../src/platform/roles.ts';
import { Secret } from '../../src/platform/secret.ts';
import { startResendStandIn } from '../resend-stand-in/resend-stand-in.ts';
import { newAgeKey, sopsBinary } from './sops-binary.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const testKeys = join(root, 'deploy/public-test.age.key');
const sops = sopsBinary();
const RESEND_KEY = 're_hush_hush';
const WEBHOOK_SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-secrets-'));
  file = join(folder, 'secrets.encrypted.yaml');
  for (const name of ['secrets.encrypted.yaml', '.sops.yaml'])
    copyFileSync(join(root, name), join(folder, name));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(!sops)('the file in the repository', () => {
  it('is opened by the public test keys, holds placeholders alone, and has every name', () => {
    const values = Object.entries(decrypted());
    expect(new Set(values.map(([, value]) => value))).toEqual(new Set(['placeholder']));
    expect(values.map(([name]) => name)).toEqual(expect.arrayContaining([...secretVariables]));
  });

  it('is for three: the owner, the server and GitHub Actions', async () => {
    const recipients = JSON.parse((await millrace(['recipients', '--json'])).stdout) as {
      key: string;
      name: string;
    }[];
    expect(recipients.map(({ name }) => name.split(' ')[0])).toEqual(['owner', 'server', 'github-actions']);
    expect(recipients.map(({ key }) => key)).toEqual(PUBLIC_TEST_RECIPIENTS);
    const documented = readFileSync(testKeys, 'utf8').match(/age1\w+/g);
    expect(documented).toEqual(PUBLIC_TEST_RECIPIENTS);
  });
});

describe.skipIf(!sops)('a value', () => {
  it('is set, listed by name, and removed; sops itself reads it', async () => {
    const { stderr } = await millrace(['set', 'RESEND_API_KEY'], { input: RESEND_KEY });
    expect(stderr).toContain('public test keys');
    expect(decrypted()).toMatchObject({ RESEND_API_KEY: RESEND_KEY, ADMIN_TOKEN: 'placeholder' });
    await millrace(['set', 'TOOL_SECRET_DEEPL'], { input: 'two words "and" a quote' });
    expect(decrypted()).toMatchObject({ TOOL_SECRET_DEEPL: 'two words "and" a quote' });
    expect((await millrace(['list'])).stdout).toMatch(/^TOOL_SECRET_DEEPL +there +runner$/m);
    await millrace(['unset', 'TOOL_SECRET_DEEPL']);
    expect(decrypted()).not.toHaveProperty('TOOL_SECRET_DEEPL');
  });

  it(
    'never shows: not in arguments, not in an environment, not in what is printed',
    { timeout: 90_000 },
    async () => {
      const { seen, path } = watchedSops();
      const env = { PATH: path, S2_ACCESS_TOKEN: 'hush of the environment' };
      const outputs = [
        await millraceProcess(['set', 'RESEND_API_KEY'], { input: `${RESEND_KEY}\n`, env }),
        await millraceProcess(['set', 'ADMIN_TOKEN'], { input: ' \n', env }),
      ];
      expect(outputs.map(({ status }) => status)).toEqual([0, 2]);
      expect(outputs[1]?.stderr).toContain('no value came');
      expect(decrypted()['RESEND_API_KEY']).toBe(RESEND_KEY);
      const shown = readFileSync(seen, 'utf8');
      expect(shown).toContain('set --value-stdin');
      expect(shown).toContain('SOPS_AGE_KEY_FILE=');
      expect(`${shown}${JSON.stringify(outputs)}`).not.toMatch(/hush/);
    },
  );

  // SOPS writes the whole document in the clear for the editor.
  it('is edited in memory', { timeout: 60_000 }, async () => {
    const seen = join(folder, 'edited');
    const editor = join(folder, 'editor');
    writeFileSync(
      editor,
      `#!/bin/sh\necho "$1" >'${seen}'\nsed -i 's/^ADMIN_TOKEN:.*/ADMIN_TOKEN: edited/' "$1"\n`,
    );
    chmodSync(editor, 0o755);
    const { status } = await millraceProcess(['edit'], { env: { SOPS_EDITOR: editor } });
    expect({ status, token: decrypted()['ADMIN_TOKEN'] }).toEqual({ status: 0, token: 'edited' });
    expect(readFileSync(seen, 'utf8')).toMatch(/^\/dev\/shm\//);
    await millraceProcess(['edit'], { env: { SOPS_EDITOR: editor, TMPDIR: folder } });
    expect(readFileSync(seen, 'utf8')).toMatch(new RegExp(`^${folder}/`));
  });

  it.each([
    ['PATH', 'x', 'PATH is no secret of Millrace'],
    ['TOOL_SECRET_../../x', 'x', 'TOOL_SECRET_../../x is no secret'],
    ['RESEND_API_KEY', 'hush hush', 'RESEND_API_KEY holds a space'],
    ['RESEND_WEBHOOK_SECRET', 'hush', "RESEND_WEBHOOK_SECRET must be the webhook's signing secret"],
  ])('is refused: %s', async (name, input, message) => {
    const before = readFileSync(file, 'utf8');
    const { status, stderr, stdout } = await millrace(['set', name], { input });
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr).not.toContain('hush');
    expect(readFileSync(file, 'utf8')).toBe(before);
  });

  it('that a person wrote wrongly is found by check, which repeats none', async () => {
    execFileSync(sops!, ['set', '--value-stdin', file, '["GITHUB_PAT"]'], {
      input: '"hush hush"',
      env: keyEnv(),
    });
    const { status, stderr } = await millrace(['check']);
    expect(status).toBe(2);
    expect(stderr).toContain('- GITHUB_PAT holds a space');
    expect(stderr).not.toContain('hush');
  });
});

describe.skipIf(!sops)('a file that cannot be opened', () => {
  it.each<[string, () => Record<string, string>, string]>([
    ['without a key', () => ({ SOPS_AGE_KEY_FILE: join(folder, 'none') }), 'there is no age key'],
    ['with another key', () => ({ SOPS_AGE_KEY_FILE: otherKey().path }), 'not one of the recipients'],
    ['without sops', () => ({ PATH: dirname(process.execPath) }), 'there is no `sops` on the PATH'],
  ])('%s', async (_name, env, message) => {
    const { status, stderr } = await millrace(['check'], { env: env() });
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });

  it.each<[string, (encrypted: string) => string]>([
    ['a changed value', (encrypted) => encrypted.replace(/(ADMIN_TOKEN: ENC\[AES256_GCM,data:)../, '$1ZZ')],
    ['a value under another name', swappedNames],
    ['a value that was taken out', (encrypted) => encrypted.replace(/^ADMIN_TOKEN: .*\n/m, '')],
    ['a plain value put in', (encrypted) => encrypted.replace(/^sops:/m, 'S2_BASIN: plain\nsops:')],
  ])('because of %s: it is refused, and nothing is written', async (_name, tamper) => {
    const encrypted = readFileSync(file, 'utf8');
    writeFileSync(file, tamper(encrypted));
    expect(readFileSync(file, 'utf8')).not.toBe(encrypted);
    const to = join(memoryFolder(), 'credentials');
    const { status, stderr } = await millrace(['export', '--to', to]);
    expect(status).toBe(2);
    expect(stderr).toContain('its MAC does not fit');
    expect(existsSync(to)).toBe(false);
  });

  it('because it is plain: it is refused', async () => {
    writeFileSync(file, 'ADMIN_TOKEN: hush\n');
    expect((await millrace(['check'])).stderr).toContain('not encrypted by SOPS');
  });
});

describe.skipIf(!sops)('recipients', () => {
  it('are added, and removed with a new data key, which an old one does not open', async () => {
    await millrace(['set', 'ADMIN_TOKEN'], { input: 'hush' });
    const mine = otherKey();
    expect((await millrace(['add-recipient', mine.recipient, '--name', 'laptop'])).status).toBe(0);
    const old = readFileSync(file, 'utf8');
    const env = { SOPS_AGE_KEY_FILE: mine.path };
    for (const name of ['owner (public test key)', 'server (public test key)', PUBLIC_TEST_RECIPIENTS[2]!]) {
      const removed = await millrace(['remove-recipient', name], { env });
      expect(removed.stdout).toContain('change them (millrace secrets set): RESEND_API_KEY');
    }
    expect(decrypted(mine.path)).toMatchObject({ ADMIN_TOKEN: 'hush' });
    expect(() => decrypted()).toThrow('sops');
    expect((await millrace(['recipients'], { env })).stdout).toBe(`${mine.recipient}  laptop\n`);
    // Under the old data key, every value would have kept its cipher text.
    const cipherTexts = readFileSync(file, 'utf8').match(/data:[^,]+/g)!;
    expect(cipherTexts.filter((cipherText) => old.includes(cipherText))).toEqual([]);
    // A change by hand goes by .sops.yaml: it holds the same.
    expect(readFileSync(join(folder, '.sops.yaml'), 'utf8').match(/age1\w+/g)).toEqual([mine.recipient]);
  });

  it('cannot be removed where nobody, or not we ourselves, could read the file any more', async () => {
    const mine = otherKey();
    await millrace(['add-recipient', mine.recipient, '--name', 'me']);
    const env = { SOPS_AGE_KEY_FILE: mine.path };
    const before = readFileSync(file, 'utf8');
    expect((await millrace(['remove-recipient', 'me'], { env })).stderr).toContain(
      'that you work with yourself',
    );
    expect(readFileSync(file, 'utf8')).toBe(before);
    for (const key of PUBLIC_TEST_RECIPIENTS) await millrace(['remove-recipient', key], { env });
    expect((await millrace(['remove-recipient', 'me'], { env })).stderr).toContain(
      'nobody could read the file',
    );
  });

  it.each([
    ['what is no age key', 'ssh-ed25519 AAAA', 'this is no age recipient'],
    ['a key with a slip', `${PUBLIC_TEST_RECIPIENTS[0]!.slice(0, -1)}x`, 'sops:'],
  ])('are refused: %s', async (_name, key, message) => {
    const before = readFileSync(file, 'utf8');
    expect((await millrace(['add-recipient', key])).stderr).toContain(message);
    expect(readFileSync(file, 'utf8')).toBe(before);
  });

  it('of a new file are who is named', async () => {
    const mine = otherKey();
    const path = join(folder, 'new/secrets.encrypted.yaml');
    mkdirSync(dirname(path));
    const init = [
      'init',
      '--recipient',
      `${mine.recipient}=owner`,
      PUBLIC_TEST_RECIPIENTS[1]!,
      '--file',
      path,
    ];
    expect(await millrace(init)).toMatchObject({ status: 0 });
    const env = { SOPS_AGE_KEY_FILE: mine.path };
    expect((await millrace(['set', 'ADMIN_TOKEN', '--file', path], { input: 'x', env })).status).toBe(0);
    expect((await millrace(init)).stderr).toContain('is there already');
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
});

describe.skipIf(!sops)('export', () => {
  it('gives each role what it needs, in memory, for root alone, and swaps at once', async () => {
    for (const [name, value] of Object.entries({
      RESEND_API_KEY: RESEND_KEY,
      ADMIN_TOKEN: 'a',
      TOOL_SECRET_T: 't',
    }))
      await millrace(['set', name], { input: value });
    const to = join(memoryFolder(), 'credentials');
    await millrace(['export', '--to', to]);
    const first = realpathSync(to);
    await millrace(['unset', 'ADMIN_TOKEN']);
    await millrace(['export', '--to', to]);
    expect(tree(to)).toEqual({
      all: ['RESEND_API_KEY', 'TOOL_SECRET_T'],
      ingest: ['RESEND_API_KEY'],
      outbox: ['RESEND_API_KEY'],
      runner: ['TOOL_SECRET_T'],
      sync: [],
    });
    expect(readFileSync(join(to, 'ingest/RESEND_API_KEY'), 'utf8')).toBe(RESEND_KEY);
    expect(statSync(join(to, 'ingest')).mode & 0o777).toBe(0o700);
    expect(statSync(join(to, 'ingest/RESEND_API_KEY')).mode & 0o777).toBe(0o400);
    expect(existsSync(first)).toBe(false);
    expect(readdirSync(dirname(to))).toHaveLength(2);
  });

  it('writes to no disk, and over nothing that is not its own', async () => {
    expect((await millrace(['export', '--to', join(root, 'credentials')])).stderr).toMatch(/is on a disk/);
    const to = join(memoryFolder(), 'theirs');
    mkdirSync(to);
    writeFileSync(join(to, 'file'), 'x');
    expect((await millrace(['export', '--to', to])).stderr).toContain('is in the way');
    expect(readdirSync(to)).toEqual(['file']);
  });
});

describe.skipIf(!sops)('rotating the webhook secret', () => {
  const PUBLIC_URL = 'https://mail.example.com';

  it('has both count, by a second webhook at Resend, then the new one alone', async () => {
    const standIn = await startResendStandIn({
      apiKey: RESEND_KEY,
      domains: [{ name: 'example.com' }],
    });
    onTestFinished(() => standIn.stop());
    const api = async (path: string, init: RequestInit = {}): Promise<{ [key: string]: unknown }> => {
      const headers = { authorization: `Bearer ${RESEND_KEY}`, 'content-type': 'application/json' };
      return (await (await fetch(`${standIn.url}${path}`, { ...init, headers })).json()) as never;
    };
    const made = await api('/webhooks', {
      method: 'POST',
      body: JSON.stringify({
        endpoint: `${PUBLIC_URL}/webhooks/resend`,
        events: ['email.received', 'email.bounced'],
      }),
    });
    await millrace(['set', 'RESEND_API_KEY'], { input: RESEND_KEY });
    await millrace(['set', 'RESEND_WEBHOOK_SECRET'], { input: String(made['signing_secret']) });
    const env = { MAIL_DOMAIN: 'example.com', PUBLIC_URL, RESEND_BASE_URL: standIn.url };

    expect(await millrace(['rotate-webhook-secret'], { env })).toMatchObject({ status: 0 });
    const [fresh, old] = decrypted()['RESEND_WEBHOOK_SECRET']!.split(' ');
    expect(old).toBe(made['signing_secret']);
    expect((await millrace(['rotate-webhook-secret'], { env })).stderr).toContain('under way already');

    expect(await millrace(['rotate-webhook-secret', '--finish'], { env })).toMatchObject({ status: 0 });
    expect(decrypted()['RESEND_WEBHOOK_SECRET']).toBe(fresh);
    const { data } = (await api('/webhooks')) as { data: { id: string; events: string[] }[] };
    expect(data).toMatchObject([{ events: ['email.received', 'email.bounced'] }]);
    expect((await api(`/webhooks/${data[0]!.id}`))['signing_secret']).toBe(fresh);
  });

  // As earlier setups left it: their webhook's secret stood behind one that no webhook had, and the dead one was kept.
  it('keeps the secret that a webhook has, in whatever order', async () => {
    const standIn = await startResendStandIn({ apiKey: RESEND_KEY, domains: [{ name: 'example.com' }] });
    onTestFinished(() => standIn.stop());
    const made = await fetch(`${standIn.url}/webhooks`, {
      method: 'POST',
      headers: { authorization: `Bearer ${RESEND_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ endpoint: `${PUBLIC_URL}/webhooks/resend`, events: ['email.received'] }),
    });
    const { signing_secret: live } = (await made.json()) as { signing_secret: string };
    await millrace(['set', 'RESEND_API_KEY'], { input: RESEND_KEY });
    await millrace(['set', 'RESEND_WEBHOOK_SECRET'], { input: `${WEBHOOK_SECRET} ${live}` });
    const env = { MAIL_DOMAIN: 'example.com', PUBLIC_URL, RESEND_BASE_URL: standIn.url };
    expect(await millrace(['rotate-webhook-secret', '--finish'], { env })).toMatchObject({ status: 0 });
    expect(decrypted()['RESEND_WEBHOOK_SECRET']).toBe(live);
  });

  it('works by hand, too', async () => {
    await millrace(['set', 'RESEND_WEBHOOK_SECRET'], { input: WEBHOOK_SECRET });
    await millrace(['rotate-webhook-secret', '--stdin'], { input: 'whsec_c2Vjb25k' });
    expect(decrypted()['RESEND_WEBHOOK_SECRET']).toBe(`whsec_c2Vjb25k ${WEBHOOK_SECRET}`);
    await millrace(['rotate-webhook-secret', '--finish', '--without-resend']);
    expect(decrypted()['RESEND_WEBHOOK_SECRET']).toBe('whsec_c2Vjb25k');
  });
});

interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

interface Given {
  input?: string;
  /** Besides those of somebody who has the test keys. */
  env?: Record<string, string>;
}

/** The command in this process. */
async function millrace(args: readonly string[], { input = '', env = {} }: Given = {}): Promise<Ended> {
  const ended = { status: 0, stdout: '', stderr: '' };
  const program = new Command();
  addSecretsCommands(program, {
    environment: { ...keyEnv(), ...env },
    print: (line) => void (ended.stdout += `${line}\n`),
    warn: (line) => void (ended.stderr += `${line}\n`),
    readSecret: () => Promise.resolve(new Secret(input)),
  });
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  try {
    await program.parseAsync(argv(args), { from: 'user' });
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    ended.status = error.kind === 'invalid' ? 2 : 1;
    ended.stderr += `${error.message}\n${error.hint}`;
  } finally {
    vi.unstubAllEnvs();
  }
  return ended;
}

/** The command as a process. */
async function millraceProcess(
  args: readonly string[],
  { input = '', env = {} }: Given = {},
): Promise<Ended> {
  const command = [join(root, 'src/main.ts'), ...argv(args)];
  const child = spawn(process.execPath, command, { env: { ...keyEnv(), ...env } });
  child.stdin.on('error', () => undefined).end(input);
  const [[status], stdout, stderr] = await Promise.all([
    once(child, 'close'),
    text(child.stdout),
    text(child.stderr),
  ]);
  return { status: status as number, stdout, stderr };
}

function argv(args: readonly string[]): string[] {
  return ['secrets', ...args, ...(args.includes('--file') ? [] : ['--file', file])];
}

function keyEnv(): Record<string, string> {
  return { PATH: `${dirname(sops!)}:${process.env['PATH']}`, HOME: folder, SOPS_AGE_KEY_FILE: testKeys };
}

function decrypted(keyFile = testKeys): Record<string, string> {
  const env = { ...keyEnv(), SOPS_AGE_KEY_FILE: keyFile };
  const json = execFileSync(sops!, ['decrypt', '--output-type', 'json', file], { env, stdio: 'pipe' });
  return JSON.parse(String(json)) as Record<string, string>;
}

function otherKey(): { path: string; recipient: string } {
  const path = join(folder, 'other.age.key');
  return { path, recipient: newAgeKey(path) };
}

/** A `sops` that notes its arguments and environment, then is the real one. */
function watchedSops(): { seen: string; path: string } {
  const seen = join(folder, 'seen');
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'sops'), `#!/bin/sh\n{ echo "$@"; env; } >>'${seen}'\nexec '${sops}' "$@"\n`);
  chmodSync(join(bin, 'sops'), 0o755);
  return { seen, path: `${bin}:${process.env['PATH']}` };
}

function swappedNames(encrypted: string): string {
  return encrypted
    .replace('ADMIN_TOKEN:', 'X:')
    .replace('GITHUB_PAT:', 'ADMIN_TOKEN:')
    .replace('X:', 'GITHUB_PAT:');
}

/** A folder on tmpfs, which is gone after the test. */
function memoryFolder(): string {
  const made = mkdtempSync('/dev/shm/millrace-secrets-');
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function tree(folderOfRoles: string): Record<string, string[]> {
  return Object.fromEntries(
    readdirSync(folderOfRoles).map((role) => [role, readdirSync(join(folderOfRoles, role)).toSorted()]),
  );
}
