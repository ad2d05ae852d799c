/** What a person sees of the tools' revisions, and how they go back to one. */
import { Hono } from 'hono';
import { describe, expect, it } from 'vitest';
import { pinRevision, printTools, unpinRevision } from '../../src/admin/tool-commands.ts';
import type { AdminClient } from '../../src/admin/admin-client.ts';
import type { ToolRevisions } from '../../src/admin/tool-revisions.ts';
import { createToolRoutes } from '../../src/admin/tool-routes.ts';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { jsonRecord, parseJsonRecord, streamNames, toolsStreamSchema } from '../../src/streams/records.ts';
import type { ToolsRecord, ToolsRequest } from '../../src/streams/records.ts';
import { useTemporaryStore } from '../streams/temporary-store.ts';

const store = useTemporaryStore();
const tools = () => store().stream(streamNames.tools);
const commitOf = (letter: string) => ({ id: letter.repeat(40), subject: `change ${letter}` });

async function wentLive(revision: string, commit?: string): Promise<void> {
  await record({ revision, status: 'live', inboxes: ['echo'], error: null }, commit);
}

async function record(
  fields: Pick<ToolsRecord, 'revision' | 'status' | 'inboxes' | 'unreachable' | 'error'>,
  commit?: string,
): Promise<void> {
  const from = commit === undefined ? {} : { commit: commitOf(commit) };
  await tools().append([jsonRecord({ kind: 'tools', version: 1, ...fields, ...from, at: '' })]);
}

function app(): Hono {
  return new Hono().route('/', createToolRoutes({ store: store(), clock, log: createLog('silent') }));
}

function post(path: string, body: unknown): Response | Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return app().request(`/api/admin/tools/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
}

async function seen(): Promise<ToolRevisions> {
  return (await (await app().request('/api/admin/tools')).json()) as ToolRevisions;
}

async function lastRequest() {
  const { records } = await tools().read({ fromSeqNum: (await tools().tail()) - 1 });
  return parseJsonRecord(toolsStreamSchema, records[0]!);
}

describe('revisions of the tools', () => {
  it('are listed, newest first, with what is live and what is pinned', async () => {
    expect(await seen()).toEqual({ live: null, pinned: null, revisions: [] });
    await wentLive('aaaaaaaaaaaa', 'a');
    await record({ revision: 'none', status: 'refused', inboxes: [], error: 'index.ts:1:1: no' }, 'b');
    const { live, revisions } = await seen();
    expect(live?.revision).toBe('aaaaaaaaaaaa');
    expect(revisions.map(({ status }) => status)).toEqual(['refused', 'live']);
  });

  it.each([
    ['what was live before', null],
    ['a revision', 'aaaaaaaaaaaa'],
    ['the beginning of a commit', 'aaaaa'],
  ])('are gone back to by %s', async (_, revision) => {
    await wentLive('aaaaaaaaaaaa', 'a');
    await wentLive('bbbbbbbbbbbb', 'b');
    await wentLive('bbbbbbbbbbbb', 'c');
    expect((await post('pin', { revision })).status).toBe(200);
    expect(await lastRequest()).toMatchObject({ action: 'pin', commit: commitOf('a').id });
    expect((await seen()).pinned).toBe(commitOf('a').id);
    expect((await post('unpin', {})).status).toBe(200);
    expect(await lastRequest()).toMatchObject({ action: 'unpin' });
    expect((await seen()).pinned).toBeNull();
  });

  it.each([
    ['tools.no_such_revision', 'cccc'],
    ['tools.no_such_revision', 'bbbbbbbbbbbb'],
    ['tools.cannot_pin', 'dddddddddddd'],
    ['admin.invalid_request', 'abc'],
    ['admin.invalid_request', '../../outbox'],
    ['admin.invalid_request', 7],
  ])('answer %s to %s', async (code, revision) => {
    await wentLive('dddddddddddd');
    await wentLive('aaaaaaaaaaaa', 'a');
    await record({ revision: 'none', status: 'refused', inboxes: [], error: 'no' }, 'b');
    const tail = await tools().tail();
    const response = await post('pin', { revision });
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({ error: { code } });
    expect(await tools().tail()).toBe(tail);
  });

  // The second time it went forward again, to what had just been gone back from.
  it('are gone back to further with each rollback, and after an unpin from what is live then', async () => {
    const lastPinned = async () => {
      await post('pin', { revision: null });
      const { commit } = (await lastRequest()) as ToolsRequest;
      await wentLive(commit![0]!.repeat(12), commit![0]);
      return commit![0];
    };
    for (const letter of ['a', 'b', 'c']) await wentLive(letter.repeat(12), letter);
    expect([await lastPinned(), await lastPinned()]).toEqual(['b', 'a']);
    expect((await post('pin', { revision: null })).status).toBe(422);
    await post('unpin', {});
    await wentLive('cccccccccccc', 'c');
    expect(await lastPinned()).toBe('a');
  });

  it('have nothing to go back to while there is only one', async () => {
    await wentLive('aaaaaaaaaaaa', 'a');
    expect(await (await post('pin', { revision: null })).json()).toMatchObject({
      error: { code: 'tools.no_such_revision' },
    });
  });

  // "The branch is followed again.", it said, and there is none.
  it.each([
    ['unpin', {}],
    ['pin', { revision: null }],
  ])('of a folder have no branch to be followed: %s is refused', async (action, body) => {
    await wentLive('aaaaaaaaaaaa');
    const answer = await post(action, body);
    expect([answer.status, await answer.json()]).toMatchObject([
      422,
      { error: { code: 'tools.cannot_pin' } },
    ]);
    expect((await seen()).revisions).toHaveLength(1);
    expect(await tools().tail()).toBe(1);
  });

  it("are shown to a person in lines, with the compiler's own", async () => {
    const served = { inboxes: ['echo'], unreachable: ['_spare', '$x'] };
    await record({ revision: 'aaaaaaaaaaaa', status: 'live', ...served, error: null }, 'a');
    await wentLive('bbbbbbbbbbbb', 'b');
    await record({ revision: 'none', status: 'refused', inboxes: [], error: 'index.ts:1:1: no' }, 'c');
    const client: AdminClient = {
      get: async <T>(path: string) => (await (await app().request(path)).json()) as T,
      post: async <T>(path: string, body: unknown) =>
        (await (await post(path.replace('/api/admin/tools/', ''), body)).json()) as T,
    };
    const lines: string[] = [];
    const deps = { client, print: (text: string) => void lines.push(text) };
    await pinRevision(deps, null);
    await printTools(deps, false);
    await unpinRevision(deps);
    expect(lines.join('\n')).toBe(
      [
        'Rolled back from bbbbbbbbbbbb, commit bbbbbbbbbbbb "change b" to aaaaaaaaaaaa, commit aaaaaaaaaaaa "change a": it is asked for, and stays whatever is pushed, until `millrace tools unpin`.',
        '  refused   commit cccccccccccc "change c"',
        '    index.ts:1:1: no',
        '  live      bbbbbbbbbbbb, commit bbbbbbbbbbbb "change b"',
        '    serves echo',
        '  was live  aaaaaaaaaaaa, commit aaaaaaaaaaaa "change a"',
        '    serves echo',
        '    no mail can reach _spare, $x',
        'Live: bbbbbbbbbbbb, commit bbbbbbbbbbbb "change b", serving echo.',
        'Pinned to aaaaaaaaaaaa; `millrace tools unpin` follows the branch.',
        'The branch is followed again.',
      ].join('\n'),
    );
  });
});
