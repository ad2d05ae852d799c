/** The page of the local mailbox in a real browser: what a newcomer does, and what a hostile reply cannot. */
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/platform/errors.ts';
import { hasBrowser, launchBrowser } from './browser.ts';
import { DOMAIN, TOKEN, reverser, startMailbox } from './mailbox-world.ts';
import type { MailboxWorld } from './mailbox-world.ts';

const HOSTILE = `<script>parent.document.title = 'pwned'</script><img src=x onerror="parent.document.title='pwned'">`;

describe.skipIf(!hasBrowser)('the page', { timeout: 60_000 }, () => {
  let browser: Browser;
  let world: MailboxWorld;
  let context: BrowserContext;
  let page: Page;
  let gate: PromiseWithResolvers<void>;
  let problems: string[];

  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  beforeEach(async () => {
    gate = Promise.withResolvers();
    problems = [];
    world = await startMailbox({
      reverser,
      broken: () => {
        throw new MillraceError('permanent', 'tool.threw', 'TypeError: x is not a function', {
          hint: 'Mend it.',
        });
      },
      waiting: async () => {
        await gate.promise;
        return { kind: 'skipped', reason: 'no-reply-from-tool' };
      },
      pages: () => ({
        text: HOSTILE,
        html: '<h1 style="color: rgb(1, 2, 3)">A page</h1>',
        attachments: [{ filename: 'report.csv', contentBase64: 'YSwxCg==', contentType: 'text/csv' }],
      }),
    });
    context = await browser.newContext();
    page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
    page.on('request', (request) => request.url().startsWith(world.url) || problems.push(request.url()));
  });

  afterEach(async () => {
    gate.resolve();
    await context.close();
    await world[Symbol.asyncDispose]();
  });

  const open = (fragment = ''): Promise<unknown> => page.goto(`${world.url}/?token=${TOKEN}${fragment}`);

  it('lets a newcomer send the ready-made email and shows the reply as it arrives', async () => {
    await open();
    expect(page.url()).toBe(`${world.url}/`);
    expect(await page.getByLabel('To', { exact: true }).inputValue()).toBe(`reverser@${DOMAIN}`);
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.reply .letter-text', { hasText: 'dlrow olleH' }).waitFor();
    expect(await page.locator('.flow li[data-state="done"]').count()).toBe(6);
    await page
      .locator('#announcer', { hasText: 'Reply from reverser: dlrow olleH' })
      .waitFor({ state: 'attached' });
    expect(problems).toEqual([]);
  });

  it('answers in the thread, with the keyboard alone', async () => {
    await open();
    await page.getByLabel('Message').focus();
    await page.keyboard.press('Control+Enter');
    await page.locator('.reply').waitFor();
    await page.getByPlaceholder('Write a reply').fill('Once more');
    await page.keyboard.press('Control+Enter');
    await page.locator('.reply .letter-text', { hasText: 'erom ecnO' }).waitFor();
    expect(await page.locator('.mail').count()).toBe(2);
    expect(await page.locator('.list-item').count()).toBe(1);
    const [conversation] = world.view.conversations();
    const [first, second] = conversation!.mails;
    const reply = first!.inboxes[0]!.replies[0]!;
    expect(second?.references).toEqual([first!.messageId, reply.messageId]);
    expect(await page.getByPlaceholder('Write a reply').inputValue()).toBe('');
  });

  it('keeps what a person is writing while something else arrives', async () => {
    const emailId = await world.send('reverser');
    await open(`#${emailId}`);
    await page.getByPlaceholder('Write a reply').fill('Half a sent');
    await world.send('broken', { subject: 'Another' });
    await page.locator('.list-item', { hasText: 'Another' }).waitFor();
    expect(await page.getByPlaceholder('Write a reply').inputValue()).toBe('Half a sent');
    expect(
      await page.getByPlaceholder('Write a reply').evaluate((box) => box.ownerDocument.activeElement === box),
    ).toBe(true);
    await page.locator('.list-item', { hasText: 'Another' }).click();
    await page.locator('.note.parked').waitFor();
    expect(await page.getByPlaceholder('Write a reply').inputValue()).toBe('');
    await page.goBack();
    await page.locator('.reply').waitFor();
    expect(await page.getByPlaceholder('Write a reply').inputValue()).toBe('Half a sent');
  });

  it('shows where a mail is while its tool runs', async () => {
    await open();
    await page.getByRole('button', { name: 'waiting' }).click();
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('.flow li[data-state="now"]', { hasText: 'tool' }).waitFor();
    gate.resolve();
    await page.locator('.note').waitFor();
    expect(await page.locator('.note').innerText()).toContain('returned nothing to send');
  });

  it('shows why a mail is parked, and sends it again', async () => {
    const emailId = await world.send('broken');
    await open(`#${emailId}`);
    await page.locator('.note.parked', { hasText: 'TypeError: x is not a function' }).waitFor();
    expect(await page.locator('.flow li[data-state="failed"]').innerText()).toContain('tool');
    await page.getByRole('button', { name: 'Send again' }).click();
    await page.locator('.mail').nth(1).locator('.note.parked').waitFor();
  });

  it('shows HTML in a frame that can do nothing, and text as text', async () => {
    const emailId = await world.send('pages');
    // Beyond what the daemon's own cleaning lets through: the frame has to hold without it.
    await page.route('**/api/mailbox/replies/*', (route) =>
      route.fulfill({ json: { html: `${HOSTILE}<h1 style="color: rgb(1, 2, 3)">A page</h1>` } }),
    );
    await open(`#${emailId}`);
    const frame = page.frameLocator('.letter-html');
    await frame.getByRole('heading', { name: 'A page' }).waitFor();
    expect(await page.locator('.letter-html').getAttribute('sandbox')).toBe('');
    expect(await page.locator('.reply .letter-text').textContent()).toBe(HOSTILE);
    expect(await page.locator('.reply script, .reply img').count()).toBe(0);
    expect(await page.title()).not.toContain('pwned');
    const saving = page.waitForEvent('download');
    await page.getByRole('link', { name: /report\.csv/ }).click();
    expect((await saving).suggestedFilename()).toBe('report.csv');
  });

  it('takes an .eml file that is dropped, and asks for the inbox where it names none', async () => {
    await open();
    const raw =
      'From: ann@sender.example\r\nTo: list@else.example\r\nSubject: Dropped\r\nMessage-ID: <d@x.example>\r\n\r\nabc';
    const dropped = await page.evaluateHandle((text) => {
      const transfer = new (
        globalThis as unknown as { DataTransfer: new () => { items: { add(file: File): void } } }
      ).DataTransfer();
      transfer.items.add(new File([text], 'mail.eml', { type: 'message/rfc822' }));
      return transfer;
    }, raw);
    await page.dispatchEvent('body', 'dragenter', { dataTransfer: dropped });
    await page.getByText('Drop to send this email').waitFor();
    await page.dispatchEvent('body', 'drop', { dataTransfer: dropped });
    await page.getByRole('dialog').getByRole('button', { name: 'reverser' }).click();
    await page.locator('.reply .letter-text', { hasText: 'cba' }).waitFor();
    expect(await page.locator('#thread-subject').innerText()).toBe('Dropped');
  });

  it('sends attachments, and says in words what is wrong with a field', async () => {
    await open();
    await page.getByLabel('From').fill('nobody');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.getByRole('alert').filter({ hasText: 'from: must be an address' }).waitFor();
    await page.getByLabel('From').fill('Ann <ann@sender.example>');
    await page
      .locator('#attach')
      .setInputFiles({ name: 'a.txt', mimeType: 'text/plain', buffer: Buffer.from('12345') });
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    expect(await page.locator('.letter .file').innerText()).toBe('a.txt (5 B)');
  });

  it('fits a phone: nothing is wider than the screen', async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    const emailId = await world.send('broken', {
      subject: 'A'.repeat(200),
      text: `${'long'.repeat(200)} word`,
    });
    for (const fragment of ['', '#new', `#${emailId}`]) {
      await open(fragment);
      await page.locator('body:not([data-view="loading"])').waitFor();
      const width = await page.evaluate('document.documentElement.scrollWidth');
      expect(width, fragment).toBeLessThanOrEqual(360);
    }
    await page.getByRole('link', { name: 'All conversations', exact: true }).click();
    await page.locator('.list-item').waitFor();
  });
});
