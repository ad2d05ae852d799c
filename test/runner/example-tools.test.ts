/** The example tools of the repository, bundled and run as they would be for mail. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { createCapabilities } from '../../src/runner/capabilities.ts';
import { settingsFor } from '../../src/runner/tool-settings.ts';
import { reverser } from '../../tools/reverser.ts';
import { email, repliesOf, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
let bundle: ToolBundle;

beforeAll(async () => {
  bundle = await bundleTools({ directory: 'tools', clock, pool: sandbox.pool });
});

it('shows its tools and what they may', () => {
  expect([...bundle.exports].toSorted()).toEqual(['reverser', 'statistics', 'translator']);
  expect(settingsFor(bundle.settings, 'translator')).toMatchObject({
    hosts: ['libretranslate.com'],
    secrets: ['LIBRETRANSLATE_API_KEY'],
    timeoutMs: 30_000,
    memoryLimitMb: 64,
  });
  expect(settingsFor(bundle.settings, 'reverser').hosts).toEqual([]);
});

describe('reverser', () => {
  const answers: [name: string, text: string, answer: string][] = [
    ['a text and its line end', 'Hello world\r\n', 'dlrow olleH'],
    ['nothing', '', ''],
    ['lines', 'one\ntwo\n\n', 'owt\neno'],
    ['a line end of two characters, which stays in order', 'a\r\nb', 'b\r\na'],
    ['a family, which is one emoji of seven code points', 'a👨‍👩‍👧‍👦b', 'b👨‍👩‍👧‍👦a'],
    ['a skin tone', 'hi 👍🏽!', '!👍🏽 ih'],
    ['two flags', '🇩🇪🇫🇷', '🇫🇷🇩🇪'],
    ['a letter with combining marks', 'cafe\u0301 x', 'x e\u0301fac'],
    ['a Hangul syllable in parts', '\u1112\u1161\u11ab글', '글\u1112\u1161\u11ab'],
    ['Hebrew, in its stored order', 'שלום', 'םולש'],
  ];
  it.each(answers)('%s', async (_name, text, answer) => {
    const result = await sandbox.run(bundle, { exportName: 'reverser', email: { ...email, text } });
    expect(repliesOf(result)).toEqual([{ text: answer }]);
  });

  it('twice is the text itself, but for white space at the end', () => {
    const segments = fc.array(fc.constantFrom('a', 'é', '👍🏽', '🇩🇪', '한', ' ', '\n', '👨‍👩‍👧'), {
      maxLength: 30,
    });
    const reversed = (text: string): string => reverser({ ...email, text } as never);
    fc.assert(
      fc.property(segments, (parts) => {
        // Flags beside one another would pair up anew: a letter keeps them apart, and the ends from white space.
        const text = ['x', ...parts, 'x'].join('-');
        expect(reversed(reversed(text))).toBe(text);
      }),
    );
  });
});

describe('statistics', () => {
  it('answers with a table and a file', async () => {
    const result = await sandbox.run(bundle, {
      exportName: 'statistics',
      email: {
        ...email,
        subject: '<img src=x onerror=alert(1)>',
        newText: 'Hello world\nagain',
        attachments: [
          {
            index: 0,
            filename: '=cmd"x',
            contentType: 'text/plain',
            disposition: null,
            contentId: null,
            size: 7,
          },
        ],
      },
    });
    const [reply] = repliesOf(result) ?? [];
    expect(reply?.html).toContain('<h1>&lt;img src=x onerror=alert(1)&gt;</h1>');
    expect(reply?.html).toContain('<td>words</td><td>3</td>');
    const [file] = reply?.attachments ?? [];
    expect(file).toMatchObject({ filename: 'statistics.csv', contentType: 'text/csv' });
    expect(Buffer.from(file!.contentBase64, 'base64').toString()).toBe(
      '"what","count"\r\n"characters","17"\r\n"words","3"\r\n"lines","2"\r\n"bytes of =cmd""x","7"\r\n',
    );
  });
});

describe('translator', () => {
  const requests: unknown[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const asked = JSON.parse(body) as { q: string; target: string };
      requests.push({ method: request.method, url: request.url, ...asked });
      const isKnown = asked.target === 'de' || asked.target === 'en';
      response.statusCode = isKnown ? 200 : 400;
      const answer = isKnown
        ? { translatedText: `${asked.target}: ${asked.q}` }
        : { error: 'no such language' };
      response.end(JSON.stringify(answer));
    });
  });
  let local: ToolBundle;
  let origin: string;

  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const source = readFileSync('tools/translator.ts', 'utf8');
    local = await sandbox.bundle({
      'index.ts': source.replace("'https://libretranslate.com'", `'${origin}'`),
    });
  });
  afterAll(() => new Promise((resolve) => server.close(resolve)));

  const translated = (tag: string | null, secrets: Record<string, string> = {}) =>
    sandbox.run(local, {
      exportName: 'translator',
      email: { ...email, tag },
      ...createCapabilities({
        settings: { hosts: [origin], secrets: ['LIBRETRANSLATE_API_KEY'] },
        secrets,
        attachmentBytes: () => Promise.reject(new Error('none')),
      }),
    });

  it('answers in the language of the tag', async () => {
    expect(repliesOf(await translated('de'))).toEqual([{ text: 'de: Hello world' }]);
    expect(requests.at(-1)).toEqual({
      method: 'POST',
      url: '/translate',
      q: 'Hello world',
      source: 'auto',
      target: 'de',
      format: 'text',
    });
  });

  it('answers in English without one, and sends a key that is set', async () => {
    expect(repliesOf(await translated(null, { LIBRETRANSLATE_API_KEY: 'k-1' }))).toEqual([
      { text: 'en: Hello world' },
    ]);
    expect(requests.at(-1)).toMatchObject({ api_key: 'k-1' });
  });

  it('fails with what the server said', async () => {
    expect(await translated('xx')).toMatchObject({
      status: 'failed',
      reason: 'threw',
      message: expect.stringContaining('LibreTranslate answered 400: no such language (index.ts:'),
    });
  });
});
