/** Marks beside commits: what the Git host is asked, as its documentation has it, and what it may answer. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../../src/platform/clock.ts';
import { createLog } from '../../../src/platform/log.ts';
import { createCommitStatuses } from '../../../src/runner/sync/commit-statuses.ts';
import type { CommitStatusOptions } from '../../../src/runner/sync/commit-statuses.ts';

const TOKEN = 'github_pat_of_the_test';
const ID = 'a'.repeat(40);

interface Asked {
  line: string;
  headers: Record<string, unknown>;
  body: Record<string, unknown>;
}

let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
});
afterEach(() => stack.disposeAsync());

/** POST /repos/{owner}/{repo}/statuses/{sha}: 201, 401 without the token, 422 for a body that is not right. */
async function gitHost(forced?: number): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    request.on('end', () => {
      const body = JSON.parse(text) as Record<string, unknown>;
      asked.push({ line: `${request.method} ${request.url}`, headers: request.headers, body });
      const isRight =
        ['error', 'failure', 'pending', 'success'].includes(String(body['state'])) &&
        String(body['description']).length <= 140;
      const isKnown = request.headers.authorization === `Bearer ${TOKEN}`;
      response.writeHead(forced ?? (isKnown ? (isRight ? 201 : 422) : 401), { location: '/elsewhere' });
      response.end('{}');
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  stack.defer(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/v3`, asked };
}

function statusesAt(apiUrl: string | null, options: Partial<CommitStatusOptions> = {}) {
  const lines: string[] = [];
  const log = createLog('silent');
  log.warn = (facts: object) => void lines.push(JSON.stringify(facts));
  const statuses = createCommitStatuses(
    { clock, log },
    { repo: 'https://github.com/you/tools.git', token: TOKEN, targetUrl: null, apiUrl, ...options },
  );
  return { statuses, lines };
}

describe('commit statuses', () => {
  it('go to the commit one after another, short, with a way to more', async () => {
    const host = await gitHost();
    const { statuses, lines } = statusesAt(host.url, { targetUrl: 'https://mail.example.com' });
    statuses.report(ID, { state: 'pending', description: 'Building and testing' });
    statuses.report(ID, { state: 'failure', description: `${'x'.repeat(300)}\nsecond line` });
    await statuses.settled();
    expect(host.asked.map(({ line }) => line)).toEqual(
      Array(2).fill(`POST /api/v3/repos/you/tools/statuses/${ID}`),
    );
    expect(host.asked[0]?.headers).toMatchObject({
      accept: 'application/vnd.github+json',
      'x-github-api-version': '2022-11-28',
    });
    expect(host.asked.map(({ body }) => body)).toEqual([
      {
        state: 'pending',
        description: 'Building and testing',
        context: 'millrace',
        target_url: 'https://mail.example.com',
      },
      expect.objectContaining({ state: 'failure', description: 'x'.repeat(140) }),
    ]);
    expect(lines).toEqual([]);
  });

  it.each([
    'https://github.com/you/tools',
    'git@github.com:you/tools.git',
    'ssh://git@github.com/you/tools.git/',
    'file:///srv/git/you/tools.git',
  ])('know the repository from %s', async (repo) => {
    const host = await gitHost();
    const { statuses } = statusesAt(host.url, { repo });
    statuses.report(ID, { state: 'success', description: 'Live' });
    await statuses.settled();
    expect(host.asked[0]?.line).toBe(`POST /api/v3/repos/you/tools/statuses/${ID}`);
  });

  it.each([401, 403, 404, 422, 500, 302])(
    'that are answered by %i are a line in the log, once',
    async (status) => {
      const host = await gitHost(status);
      const { statuses, lines } = statusesAt(host.url);
      for (let i = 0; i < 3; i++) statuses.report(ID, { state: 'success', description: 'Live' });
      await statuses.settled();
      expect(lines).toHaveLength(1);
      expect(lines.join()).not.toContain(TOKEN);
      expect(host.asked.map(({ line }) => line)).not.toContain('GET /elsewhere');
    },
  );

  it('whose host is away are a line in the log', async () => {
    const { statuses, lines } = statusesAt('http://127.0.0.1:1');
    statuses.report(ID, { state: 'success', description: 'Live' });
    await statuses.settled();
    expect(lines).toHaveLength(1);
  });

  it('are not sent without a token, nor to a host that nobody named', async () => {
    const host = await gitHost();
    for (const options of [
      { token: null },
      { repo: 'https://gitlab.example/you/tools.git', apiUrl: null },
      { repo: 'https://github.com.evil.example/you/tools.git', apiUrl: null },
    ]) {
      const { statuses, lines } = statusesAt(host.url, options);
      statuses.report(ID, { state: 'success', description: 'Live' });
      await statuses.settled();
      expect(lines).toEqual([]);
    }
    expect(host.asked).toEqual([]);
  });
});
