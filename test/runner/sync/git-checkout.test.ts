/** What a Git host over HTTP is told, and what it may do: the token, redirects to elsewhere, silence. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createGitRepository } from '../../../src/runner/sync/git-checkout.ts';
import { createBareRepository } from './bare-repository.ts';

const TOKEN = 'github_pat_of_the_test';
const signal = new AbortController().signal;
let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
});
afterEach(() => stack.disposeAsync());

/** A server on loopback that keeps what it was asked. */
async function gitHost(answer: RequestListener): Promise<{ url: string; requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    answer(request, response);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  stack.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

function repositoryAt(url: string, options: { token?: string | null; timeoutMs?: number } = {}) {
  const environment = { PATH: process.env['PATH']! };
  return createGitRepository({ clock }, { url, branch: 'main', token: TOKEN, environment, ...options });
}

const failed = { kind: 'transient', code: 'tools.git_failed' };

describe('a Git host', () => {
  it('is told the token in a header, and no command line or message holds it', async () => {
    let commandLines = '';
    const host = await gitHost((_, response) => {
      commandLines += execFileSync('ps', ['-ww', '-eo', 'args']).toString();
      response.writeHead(403).end();
    });
    const failure: unknown = await repositoryAt(`${host.url}/you/tools.git`)
      .head(signal)
      .catch((error: unknown) => error);
    expect(failure).toMatchObject(failed);
    const credentials = Buffer.from(`x-access-token:${TOKEN}`).toString('base64');
    expect(host.requests[0]?.headers.authorization).toBe(`Basic ${credentials}`);
    expect(commandLines).toContain('ls-remote');
    for (const secret of [TOKEN, credentials]) {
      expect(commandLines).not.toContain(secret);
      expect((failure as Error).message).not.toContain(secret);
    }
  });

  it('that sends elsewhere does not send the token there', async () => {
    const other = await gitHost((_, response) => void response.writeHead(403).end());
    const host = await gitHost(({ url }, response) => {
      response.writeHead(302, { location: `${other.url}${url}` }).end();
    });
    await expect(repositoryAt(`${host.url}/tools.git`).head(signal)).rejects.toMatchObject(failed);
    expect(host.requests[0]?.headers.authorization).toBeDefined();
    expect(other.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });

  it('that is silent is given up, and leaves no folder', async () => {
    const host = await gitHost(() => {});
    const directory = await mkdtemp(join(tmpdir(), 'millrace-checkout-'));
    stack.defer(() => rm(directory, { recursive: true }));
    const repository = repositoryAt(`${host.url}/tools.git`, { timeoutMs: 300 });
    await expect(repository.head(signal)).rejects.toMatchObject(failed);
    const checkout = repository.checkout('a'.repeat(40), join(directory, 'incoming'), signal);
    await expect(checkout).rejects.toMatchObject({ ...failed, message: 'git: no end within 300 ms' });
    expect(await readdir(directory)).toEqual([]);
  });

  it.each(['ext::sh -c "touch /tmp/never"', 'fd::17'])('is not %s', async (url) => {
    await expect(repositoryAt(url).head(signal)).rejects.toMatchObject({
      ...failed,
      message: expect.stringMatching(/not allowed|not permitted/) as string,
    });
  });
});

// Only root can give a folder away.
it.runIf(process.getuid?.() === 0)('a repository on this machine may be of another user', async () => {
  const repository = stack.use(await createBareRepository());
  const id = await repository.push({ 'tools/index.ts': '' });
  execFileSync('chown', ['-R', '65534', repository.path]);
  const folder = join(repository.path, '..', 'checkout');
  expect(await repositoryAt(repository.path).head(signal)).toBe(id);
  expect(await repositoryAt(`file://${repository.path}`).checkout(id, folder, signal)).toMatchObject({ id });
});

it('files are what the commit holds, whatever attributes the repository gives them', async () => {
  const repository = stack.use(await createBareRepository());
  const folder = join(repository.path, '..', 'checkout');
  const attributes = 'tools/* text eol=crlf ident working-tree-encoding=UTF-32\n';
  const text = '// $Id$\n'.repeat(1000);
  // The author's Git is not to convert what it is given.
  const info = join(repository.path, '..', 'author', '.git', 'info');
  await writeFile(join(info, 'attributes'), '* -text !working-tree-encoding -ident\n');
  const id = await repository.push({ '.gitattributes': attributes, 'tools/index.ts': text });
  await repositoryAt(repository.path).checkout(id, folder, signal);
  expect(await readFile(join(folder, '.gitattributes'), 'utf8')).toBe(attributes);
  expect(await readFile(join(folder, 'tools', 'index.ts'), 'latin1')).toBe(text);
});
