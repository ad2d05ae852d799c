/**
 * The first minute of a newcomer, with the real daemon and a real browser: start it without any account, open
 * the link that it prints, send the email that is already written, read the answer; then change a function.
 */
import { existsSync } from 'node:fs';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasBrowser, launchBrowser } from '../admin/browser.ts';
import { startDaemon, temporaryDirectory } from './daemon.ts';

const root = join(import.meta.dirname, '../..');

describe.skipIf(!hasBrowser)('without any account', { timeout: 90_000 }, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  it('answers the ready-made email, and a changed function at the next one', async () => {
    await using directory = await temporaryDirectory();
    const tools = join(directory.path, 'tools');
    await cp(join(root, 'tools'), tools, { recursive: true });
    const daemon = await startDaemon({
      DATA_DIR: join(directory.path, 'data'),
      TOOLS_PATH: tools,
      PORT: '0',
    });
    try {
      const link = /http:\/\/\S+\?token=\S+/.exec(daemon.output())?.[0] ?? '';
      const page = await browser.newPage();
      page.setDefaultTimeout(30_000);
      await page.goto(link);
      await page.getByRole('button', { name: 'reverser', pressed: true }).waitFor();
      await page.getByRole('button', { name: 'Send', exact: true }).click();
      await page.locator('.reply .letter-text').waitFor();
      expect(await page.locator('.reply .letter-text').innerText()).toBe('dlrow olleH');
      expect(await page.locator('.flow li[data-state="done"]').count()).toBe(6);

      await writeFile(join(tools, 'index.ts'), 'export const shout = (email) => email.text.toUpperCase();\n');
      await page.getByRole('link', { name: 'New email' }).click();
      await page.getByRole('button', { name: 'shout' }).click();
      await page.getByLabel('Message').fill('quiet words');
      await page.keyboard.press('Control+Enter');
      await page.locator('.reply .letter-text', { hasText: 'QUIET WORDS' }).waitFor();
      await page.close();
    } finally {
      expect(await daemon.stop()).toBe(0);
      // Nobody sends the token to whoever listens there next.
      expect(existsSync(join(directory.path, 'data/daemon.json'))).toBe(false);
    }
  });
});
