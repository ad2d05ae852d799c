/** What a tool may state as effects, in every form, and what is said of those that are none. */
import { describe, expect, it } from 'vitest';
import type { PlainEffect, RunResult } from '../../src/runner/sandbox/sandbox.ts';
import { useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });

function effectsOf(result: RunResult): PlainEffect[] {
  if (result.status !== 'returned') throw new Error(`${result.reason}: ${result.message}`);
  return result.effects.map(({ place: _place, ...effect }) => effect);
}

describe('effects', () => {
  const stated: [body: string, effects: unknown][] = [
    [
      `return { text: 'a', at: '2026-12-24T18:00:00+01:00' };`,
      [reply('a', { at: '2026-12-24T17:00:00.000Z' })],
    ],
    [`return { text: 'a', at: new Date(0) };`, [reply('a', { at: '1970-01-01T00:00:00.000Z' })]],
    [
      `return { to: 'Ann <ann@x.example>', subject: 's', text: 'a' };`,
      [{ kind: 'send', to: ['Ann <ann@x.example>'], subject: 's', text: 'a' }],
    ],
    [
      `return { to: ['a@x.example', email.from], cc: 'c@x.example', bcc: [], html: '<b>a</b>' };`,
      [{ kind: 'send', to: ['a@x.example', 'ada@example.net'], cc: ['c@x.example'], html: '<b>a</b>' }],
    ],
    [`return { forward: 'a@x.example' };`, [{ kind: 'forward', to: ['a@x.example'] }]],
    [
      `return { forward: [email.from, { to: 'b@x.example', text: 'look' }], reply: 'thanks' };`,
      [
        reply('thanks'),
        { kind: 'forward', to: ['ada@example.net'] },
        { kind: 'forward', to: ['b@x.example'], text: 'look' },
      ],
    ],
    [
      `return { send: { to: 'a@x.example', text: 'a', at: new Date(5) }, reply: ['b', { text: 'c' }], at: new Date(0) };`,
      [
        reply('b', { at: '1970-01-01T00:00:00.000Z' }),
        reply('c', { at: '1970-01-01T00:00:00.000Z' }),
        { kind: 'send', to: ['a@x.example'], text: 'a', at: '1970-01-01T00:00:00.005Z' },
      ],
    ],
    [
      `return [{ text: 'a' }, { to: 'b@x.example', text: 'b' }, { forward: 'c@x.example' }];`,
      [
        reply('a'),
        { kind: 'send', to: ['b@x.example'], text: 'b' },
        { kind: 'forward', to: ['c@x.example'] },
      ],
    ],
    [
      `const { send, reply, forward } = context;
       send({ to: 'a@x.example', text: 'first' });
       await new Promise((done) => setTimeout(done, 1));
       forward(['b@x.example', 'c@x.example']);
       reply('third');
       reply({ html: Promise.resolve('<i>fourth</i>') });
       return 'last';`,
      [
        { kind: 'send', to: ['a@x.example'], text: 'first' },
        { kind: 'forward', to: ['b@x.example', 'c@x.example'] },
        reply('third'),
        { kind: 'reply', html: '<i>fourth</i>' },
        reply('last'),
      ],
    ],
    [`const mail = { text: 'as it was' }; context.reply(mail); mail.text = 'changed';`, [reply('as it was')]],
    [`try { context.send({ text: 'to nobody' }) } catch { context.reply('caught') }`, [reply('caught')]],
  ];
  it.each(stated)('%s', async (body, effects) => {
    expect(effectsOf(await sandbox.runBody(body))).toEqual(effects);
  });

  const faults: [body: string, message: string][] = [
    ['return { to: 42, text: "a" };', '`to` is a number (42), not an address'],
    ['return { to: ["a@x.example", null], text: "a" };', '`to[1]` is null, not an address'],
    ['return { to: [], text: "a" };', '`to` names nobody'],
    ['return { cc: "a@x.example", text: "a" };', '`to` names nobody'],
    ['return { to: "a@x.example" };', 'the tool returned a mail without `text`, `html` or `attachments`'],
    [
      'return { to: "a@x.example", body: "a" };',
      'unknown key `body`; known: to, cc, bcc, text, html, subject, attachments, at',
    ],
    ['return { reply: "a", text: "b" };', 'unknown key `text`; known: reply, send, forward, at'],
    ['return { reply: 42 };', '`reply` is a number (42), not a reply'],
    ['return [{ text: "a" }, { send: { to: 42 } }];', '`[1].send.to` is a number (42), not an address'],
    ['return { forward: {} };', '`forward.to` names nobody'],
    ['return { forward: { to: "a@x.example", attachments: [] } };', 'unknown key `attachments`'],
    ['return { text: "a", at: "tomorrow" };', '`at` is a string (tomorrow), not a Date or an ISO 8601 time'],
    [
      'return { text: "a", at: "2026-12-24T18:00:00" };',
      '`at` is a string (2026-12-24T18:00:00), not a Date',
    ],
    ['return { text: "a", at: "2026-13-24T18:00:00Z" };', '`at` is a string (2026-13-24T18:00:00Z), not'],
    ['return { text: "a", at: new Date("x") };', '`at` is an invalid Date'],
    ['return { text: "a", at: 42 };', '`at` is a number (42), not a Date'],
    ['context.reply(42);', 'context.reply was given a number (42), not a reply'],
    [
      'context.send({ to: "a@x.example", txt: "a" });',
      'context.send was given an object with the unknown key',
    ],
    ['context.send({ text: "a" });', '`send.to` names nobody'],
    ['context.forward();', 'context.forward was given undefined, not an address or { to }'],
    [
      'context.reply({ html: Promise.reject(new Error("no")) });',
      'reading `reply.html` of the result: Error: no',
    ],
    ['for (let i = 0; i < 101; i++) context.reply("a");', 'stated 101 effects; at most 100'],
    ['context.reply("a"); return Array(100).fill({ text: "a" });', 'stated 101 effects; at most 100'],
    ['return { to: Array(51).fill("a@x.example"), text: "a" };', '`to` has 51 addresses; at most 50'],
  ];
  it.each(faults)('%s is refused by name', async (body, message) => {
    expect(await sandbox.runBody(body)).toMatchObject({
      status: 'failed',
      reason: 'invalid-result',
      message: expect.stringContaining(message) as string,
    });
  });

  it('of a run that fails are none', async () => {
    const result = await sandbox.runBody('context.reply("a"); throw new Error("no");');
    expect(result).toMatchObject({ status: 'failed', reason: 'threw' });
    expect(result).not.toHaveProperty('effects');
  });
});

function reply(text: string, more: { at?: string } = {}): PlainEffect {
  return { kind: 'reply', text, ...more };
}
