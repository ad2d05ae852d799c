/** What a tool gets and what it may return: the `Email` and `Context` of tool-api.ts, and every form of reply. */
import { describe, expect, it } from 'vitest';
import { composeContent } from '../../src/mail/content.ts';
import { MillraceError } from '../../src/platform/errors.ts';
import { createCapabilities } from '../../src/runner/capabilities.ts';
import type { SandboxEmail } from '../../src/runner/sandbox/sandbox.ts';
import { email, repliesOf, useSandbox } from './tool-fixture.ts';

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
const none = { settings: {}, secrets: {}, attachmentBytes: () => Promise.reject(new Error('none')) };

describe('a reply', () => {
  const replies: [name: string, body: string, replies: unknown][] = [
    ['a string', `return 'text';`, [{ text: 'text' }]],
    ['an empty string', `return '';`, [{ text: '' }]],
    ['nothing', `return;`, null],
    ['null', `return null;`, null],
    ['a promise of a string', `return Promise.resolve('later');`, [{ text: 'later' }]],
    [
      'an object',
      `return { text: 'a', subject: 'b', html: '<p>c</p>' };`,
      [{ text: 'a', subject: 'b', html: '<p>c</p>' }],
    ],
    [
      'fields that are undefined or null',
      `return { text: 'a', html: undefined, subject: null };`,
      [{ text: 'a' }],
    ],
    ['several', `return [{ text: 'a' }, { text: 'b' }];`, [{ text: 'a' }, { text: 'b' }]],
    ['none of several', `return [];`, null],
    [
      'HTML that is still being made',
      `return { html: Promise.resolve('<b>x</b>') };`,
      [{ html: '<b>x</b>' }],
    ],
    [
      'text and bytes as files',
      `return { attachments: [
        { filename: 'a.txt', content: 'ä€😀' },
        { filename: 'b.bin', content: new Uint8Array([0, 255, 128]).subarray(1), contentType: 'application/x-b' },
      ] };`,
      [
        {
          attachments: [
            { filename: 'a.txt', contentBase64: Buffer.from('ä€😀').toString('base64') },
            { filename: 'b.bin', contentBase64: '/4A=', contentType: 'application/x-b' },
          ],
        },
      ],
    ],
  ];
  it.each(replies)('%s', async (_name, body, expected) => {
    expect(repliesOf(await sandbox.runBody(body))).toEqual(expected);
  });

  // As in other workers: what was said was that `headers` is an unknown key.
  it('is no Response: its text is', async () => {
    const result = await sandbox.runBody(`return new Response('x');`);
    expect(result).toMatchObject({
      message: 'the tool returned a Response, not a reply: its text is await response.text()',
    });
  });

  it('of any bytes arrives whole', async () => {
    for (const length of [0, 1, 2, 3, 4, 100_001]) {
      const body = `return { attachments: [{ filename: 'x', content: Uint8Array.from({ length: ${length} }, (_, i) => i * 7) }] };`;
      const content = repliesOf(await sandbox.runBody(body))?.[0]?.attachments?.[0]?.contentBase64;
      const bytes = Uint8Array.from({ length }, (_, index) => index * 7);
      expect(Buffer.from(content ?? '', 'base64').equals(bytes), `${length} bytes`).toBe(true);
    }
  });
});

describe('what is no reply is named', () => {
  const faults: [body: string, message: string][] = [
    ['return 42;', 'the tool returned a number (42), not a reply'],
    ['return true;', 'the tool returned a boolean (true), not a reply'],
    ['return 10n;', 'the tool returned a bigint (10), not a reply'],
    ['return () => 1;', 'the tool returned a function, not a reply'],
    ['return Symbol("x");', 'the tool returned a symbol, not a reply'],
    ['return {};', 'the tool returned a reply without `text`, `html` or `attachments`'],
    ['return { txt: "x" };', 'unknown key `txt`; known: text, html, subject, attachments'],
    ['return { text: 42 };', '`text` is a number (42), not a string'],
    ['return { text: "x", subject: {} };', '`subject` is an object, not a string'],
    ['return { html: 42 };', '`html` is a number (42), not HTML'],
    ['return { html: { toString: () => 42 } };', '`html` renders to a number (42), not to a string'],
    ['return { html: Promise.reject(new Error("no")) };', 'reading `html` of the result: Error: no'],
    ['return ["a", "b"];', 'element 0 is a string (a), not a reply'],
    ['return [{ text: "a" }, undefined];', 'element 1 is undefined, not a reply'],
    ['return Array(101).fill({ text: "a" });', 'the tool stated 101 effects; at most 100 are taken'],
    ['return { attachments: "x" };', '`attachments` is a string (x), not an array'],
    ['return { attachments: [{ content: "x" }] };', '`attachments[0].filename` is missing'],
    [
      'return { attachments: [{ filename: "x" }] };',
      '`attachments[0].content` is undefined, not a string or Uint8Array',
    ],
    ['return new Proxy({}, { ownKeys() { throw new Error("trap") } });', 'cannot be read: Error: trap'],
    ['return { get text() { throw new Error("getter") } };', 'cannot be read: Error: getter'],
  ];
  it.each(faults)('%s', async (body, message) => {
    const result = await sandbox.runBody(body);
    expect(result).toMatchObject({ status: 'failed', reason: 'invalid-result' });
    expect(result).toMatchObject({ message: expect.stringContaining(message) });
  });
});

describe('HTML', () => {
  const hostile: SandboxEmail = { ...email, subject: `<img src=x onerror="alert('1')">` };
  const escaped = '&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;';

  // A reader saw their source.
  it('by JSX is sent without the tags that are not for mail, and with what they hold', async () => {
    const page = `<section><details open><summary>More</summary>It is <b>on its way</b>.</details>
      <button type="button">Thanks</button></section>`;
    const bundle = await sandbox.bundle({ 'index.tsx': `export const test = () => ({ html: ${page} });` });
    const replies = repliesOf(await sandbox.run(bundle, { exportName: 'test' }));
    const { html } = composeContent({ html: replies![0]!.html })!;
    expect(html).toBe('<section><div><div>More</div>It is <b>on its way</b>.</div>Thanks</section>');
  });

  it('by JSX escapes text and attributes', async () => {
    const bundle = await sandbox.bundle({
      'index.tsx': `export const test = (email) => ({ html: <p title={email.subject}>{email.subject}<br/></p> });`,
    });
    const result = await sandbox.run(bundle, { exportName: 'test', email: hostile });
    expect(repliesOf(result)).toEqual([{ html: `<p title="${escaped}">${escaped}<br/></p>` }]);
  });

  it('by JSX waits for components that are asynchronous', async () => {
    const bundle = await sandbox.bundle({
      'index.tsx': `
        const Name = async ({ of }) => { await new Promise((resolve) => setTimeout(resolve, 1)); return <b>{of}</b>; };
        export const test = (email) => ({ html: <p><Name of={email.subject} /></p> });`,
    });
    const result = await sandbox.run(bundle, { exportName: 'test', email: hostile });
    expect(repliesOf(result)).toEqual([{ html: `<p><b>${escaped}</b></p>` }]);
  });

  it('by the html template escapes, and raw does not', async () => {
    const bundle = await sandbox.bundle(`import { html, raw } from 'millrace';
      export const test = (email) => ({ html: html\`<p>\${email.subject}\${raw('<hr>')}</p>\` });`);
    const result = await sandbox.run(bundle, { exportName: 'test', email: hostile });
    expect(repliesOf(result)).toEqual([{ html: `<p>${escaped}<hr></p>` }]);
  });

  it('returned as it is is told where it belongs', async () => {
    const bundle = await sandbox.bundle({ 'index.tsx': 'export const test = () => <p>x</p>;' });
    const result = await sandbox.run(bundle, { exportName: 'test' });
    expect(result).toMatchObject({ message: 'the tool returned HTML as it is: return { html: … }' });
  });
});

it('the email has headers in any case, a date, and lists', async () => {
  const result = await sandbox.runBody(
    `return JSON.stringify([
      email.headers.get('x-test'), email.headers.getAll('X-TEST'), email.headers.has('none'),
      email.headers.get('none'), [...email.headers].length, email.date.getTime(), email.date instanceof Date,
      email.from.address, email.tag, email.inbox, email.id, email.attachments.length,
    ]);`,
    {
      email: {
        ...email,
        tag: 'news',
        headers: [
          ['X-Test', 'one'],
          ['x-test', 'two'],
          ['Subject', 'Hello'],
        ],
        date: '2026-01-02T03:04:05.000Z',
      },
    },
  );
  expect(JSON.parse(repliesOf(result)?.[0]?.text ?? '')).toEqual([
    'one',
    ['one', 'two'],
    false,
    null,
    3,
    1767323045000,
    true,
    'ada@example.net',
    'news',
    'test',
    'email-1',
    0,
  ]);
});

it.each([null, 'yesterday', ''])('a date of %j is null', async (date) => {
  const result = await sandbox.runBody('return String(email.date);', { email: { ...email, date } });
  expect(repliesOf(result)).toEqual([{ text: 'null' }]);
});

describe('attachments', () => {
  const attachment = {
    filename: 'a',
    contentType: 'text/plain',
    disposition: null,
    contentId: null,
    size: 5,
  };
  const withTwo = { ...email, attachments: [0, 1].map((index) => ({ ...attachment, index })) };

  it('are fetched when the tool asks for them, and only then', async () => {
    const asked: number[] = [];
    const capabilities = createCapabilities({
      ...none,
      attachmentBytes: async (index) => {
        asked.push(index);
        return Buffer.from(`file ${index} ä`);
      },
    });
    await sandbox.runBody('return email.attachments[0].filename;', { email: withTwo, ...capabilities });
    expect(asked).toEqual([]);
    const body = `const [, second] = email.attachments; return (await second.text()) + (await second.bytes()).length;`;
    expect(repliesOf(await sandbox.runBody(body, { email: withTwo, ...capabilities }))).toEqual([
      { text: 'file 1 ä9' },
    ]);
    expect(asked).toEqual([1]);
  });

  it('of 25 MB arrive whole, within the memory of a tool', async () => {
    const bytes = Buffer.alloc(25_000_000, 7);
    bytes[bytes.length - 1] = 9;
    const capabilities = createCapabilities({ ...none, attachmentBytes: async () => bytes });
    const body = `const bytes = await email.attachments[0].bytes(); return [bytes.length, bytes[0], bytes.at(-1)].join();`;
    expect(repliesOf(await sandbox.runBody(body, { email: withTwo, ...capabilities }))).toEqual([
      { text: '25000000,7,9' },
    ]);
  });

  it('that are empty are empty', async () => {
    const capabilities = createCapabilities({ ...none, attachmentBytes: async () => new Uint8Array(0) });
    const body = 'return String((await email.attachments[0].bytes()).length);';
    expect(repliesOf(await sandbox.runBody(body, { email: withTwo, ...capabilities }))).toEqual([
      { text: '0' },
    ]);
  });

  it('that cannot be read just now are not the tool’s fault, whatever it makes of the error', async () => {
    const down = new MillraceError('transient', 'store.down', 'the store is down');
    const capabilities = createCapabilities({ ...none, attachmentBytes: () => Promise.reject(down) });
    const body = 'await email.attachments[0].bytes().catch(() => {});';
    await expect(sandbox.runBody(body, { email: withTwo, ...capabilities })).rejects.toBe(down);
    expect(repliesOf(await sandbox.runBody('return "next";'))).toEqual([{ text: 'next' }]);
  });

  it('that are not there are an error of the tool', async () => {
    const gone = new MillraceError('permanent', 'mail.no_attachment', 'there is no attachment 0');
    const capabilities = createCapabilities({ ...none, attachmentBytes: () => Promise.reject(gone) });
    const result = await sandbox.runBody('await email.attachments[0].bytes();', {
      email: withTwo,
      ...capabilities,
    });
    expect(result).toMatchObject({
      reason: 'threw',
      message: expect.stringMatching(/^Error: there is no attachment 0/),
    });
  });
});

it('secrets are those that are granted, and their lack is explained', async () => {
  const capabilities = createCapabilities({
    ...none,
    settings: { secrets: ['GRANTED', 'UNSET'] },
    secrets: { GRANTED: 'value', OTHER: 'other' },
  });
  const body = `
    const results = ['GRANTED', 'UNSET', 'OTHER', '__proto__', 'constructor'].map((name) => {
      try { return context.secret(name) } catch (error) { return error.message }
    });
    return results.join('\\n');`;
  expect(repliesOf(await sandbox.runBody(body, capabilities))?.[0]?.text?.split('\n')).toEqual([
    'value',
    'the secret UNSET is granted but not set',
    ...['OTHER', '__proto__', 'constructor'].map(
      (name) => `the secret ${name} is not granted: name it in settings.test.secrets`,
    ),
  ]);
});

it('logs stand on the run in order, also of a run that fails', async () => {
  const body = `
    context.log('one', 1, { two: 2 }, [3n], null);
    console.error(new Error('shown').message, undefined, () => 1, Symbol('s'));
    throw new TypeError('failed');`;
  expect(await sandbox.runBody(body)).toMatchObject({
    status: 'failed',
    message: 'TypeError: failed (index.ts:5:11)',
    logs: ['one 1 {"two":2} ["3n"] null', 'shown undefined [function ] Symbol(s)'],
  });
});

it('an error says where in the source it was thrown, through other files and awaits', async () => {
  const bundle = await sandbox.bundle({
    'index.ts': `import { deep } from './lib/deep.ts';\nexport const test = async () => { await null; return deep(); };`,
    'lib/deep.ts': `\n\nexport function deep(): string {\n  const missing: { x: string } | null = null;\n  return missing!.x;\n}`,
  });
  const result = await sandbox.run(bundle, { exportName: 'test' });
  expect(result).toMatchObject({
    message: expect.stringMatching(/^TypeError: Cannot read .* \(lib\/deep\.ts:5:19\)$/),
  });
});

it('now is when the run began, however long it takes', async () => {
  const body = `const first = context.now(); await new Promise((done) => setTimeout(done, 5));
    return String(first instanceof Date && first.getTime() === context.now().getTime() && first.getTime() <= Date.now());`;
  expect(repliesOf(await sandbox.runBody(body))).toEqual([{ text: 'true' }]);
});
