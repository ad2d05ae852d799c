/** React Email's own `render`, with the packages from npm: what a tool's repository would install. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock as clock } from '../../src/platform/clock.ts';
import { bundleTools } from '../../src/runner/bundle.ts';
import type { ToolBundle } from '../../src/runner/bundle.ts';
import { limits, repliesOf, useSandbox } from '../runner/tool-fixture.ts';

const SOURCE = `/** @jsxImportSource react */
import { Button, Html, Text } from '@react-email/components';
import { render } from '@react-email/render';

const Welcome = ({ name }) => <Html><Text>Hello {name} &amp; all</Text><Button href="https://example.com/">Go</Button></Html>;
const Looping = () => { for (;;); };
const Broken = () => { throw new Error('no template'); };

export const welcome = async (email) => ({ html: await render(<Welcome name={email.from.name} />) });
export const promised = (email) => ({ html: render(<Welcome name={email.from.name} />) });
export const looping = async () => ({ html: await render(<Looping />) });
export const broken = async () => ({ html: await render(<Broken />) });
`;

const sandbox = useSandbox({ minChildren: 1, maxChildren: 1 });
const packages = fileURLToPath(new URL('../../node_modules/', import.meta.url));
// Beside the packages: tools may import what lies in their own repository alone.
const directory = mkdtempSync(join(packages, '.react-email-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let bundle: ToolBundle;

beforeAll(async () => {
  writeFileSync(join(directory, 'index.tsx'), SOURCE);
  bundle = await bundleTools({ directory, clock, root: packages, pool: sandbox.pool });
});

it.each(['welcome', 'promised', 'welcome'])('renders a template: %s', async (exportName) => {
  const [reply] = repliesOf(await sandbox.run(bundle, { exportName })) ?? [];
  expect(reply?.html).toMatch(
    /^<!DOCTYPE html.*<html.*Hello .*Ada.* &amp; all<\/p>.*href="https:\/\/example.com\/".*<\/html>/s,
  );
});

it('stops a template that loops, and runs the next', async () => {
  const request = { limits: { ...limits, timeoutMs: 1_000 } };
  const result = await sandbox.run(bundle, { exportName: 'looping', ...request });
  expect(result).toMatchObject({ status: 'failed', reason: 'timeout' });
  expect(repliesOf(await sandbox.run(bundle, { exportName: 'welcome' }))).toHaveLength(1);
});

it('says what a template threw', async () => {
  const result = await sandbox.run(bundle, { exportName: 'broken' });
  expect(result).toMatchObject({ status: 'failed', message: expect.stringContaining('no template') });
});
