/**
 * The console with real mail, in a real browser before the real daemon: from "Ann got no answer" to why, and to the
 * answer; what a hostile mail cannot do to whoever looks; and what became of a revision that was refused.
 */
import { writeFile } from 'node:fs/promises';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { hasBrowser, launchBrowser } from '../admin/browser.ts';
import type { ResendStandIn } from '../resend-stand-in/contract.ts';
import { startDaemon } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { startResendWorld } from './resend-world.ts';
import { plainMail } from './mail.ts';

const TOKEN = 'the-token-of-the-console';
const HOSTILE = `<img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>`;
const TOOLS = `
export const reverser = (email) => [...email.text].reverse().join('');
export const silent = () => undefined;
export const desk = () => { throw new Error('the desk is closed'); };
`;

describe.skipIf(!hasBrowser)('the console', { timeout: 90_000 }, () => {
  const stack = new AsyncDisposableStack();
  let browser: Browser;
  let resend: ResendStandIn;
  let daemon: Daemon;
  let toolsFile: string;
  let context: BrowserContext;
  let page: Page;
  let problems: string[];

  beforeAll(async () => {
    const world = await startResendWorld(stack, { apiKey: 're_console', tools: TOOLS });
    ({ resend, toolsFile } = world);
    daemon = await startDaemon({ ...world.variables, ADMIN_TOKEN: TOKEN });
    stack.defer(async () => void (await daemon.stop()));
    browser = await launchBrowser();
    stack.defer(() => browser.close());
  }, 60_000);
  afterAll(() => stack.disposeAsync());

  beforeEach(async () => {
    problems = [];
    context = await browser.newContext();
    page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('request', (request) => request.url().startsWith(daemon.url) || problems.push(request.url()));
  });
  afterEach(() => context.close());

  const open = (fragment = ''): Promise<unknown> => page.goto(`${daemon.url}/?token=${TOKEN}${fragment}`);
  const deliver = async (
    inbox: string,
    id: string,
    fields: Partial<Parameters<typeof plainMail>[0]> = {},
  ) => {
    const mail = plainMail({ to: `${inbox}@agents.example`, id, subject: id, ...fields });
    expect((await resend.deliver(mail)).status).toBe(200);
  };
  const inList = (subject: string) => page.locator('#list .list-item', { hasText: subject });

  it('asks for the token, and shows mail as it comes with what became of it', async () => {
    await page.goto(daemon.url);
    await page.getByLabel('Token').fill(TOKEN);
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByText('No mail here yet.').waitFor();
    expect(page.url()).toBe(`${daemon.url}/`);
    expect(await page.locator('#composer, #new-email').filter({ visible: true }).count()).toBe(0);
    await deliver('reverser', 'a question');
    await inList('a question').locator('[data-state="answered"]').waitFor();
    await deliver('silent', 'no reply wanted');
    await inList('no reply wanted').getByText('returned nothing to send').waitFor();
    await deliver('nobody', 'to nobody');
    await inList('to nobody').getByText('No function serves this address').waitFor();
    await page.getByLabel('State').selectOption('not-answered');
    expect(await page.locator('#list .list-item').count()).toBe(2);
    await page.getByLabel('State').selectOption('');
    await page.getByLabel('Inbox', { exact: true }).selectOption('reverser');
    expect(await page.locator('#list .list-item').count()).toBe(1);
    await inList('a question').click();
    await page.locator('.reply .letter-text', { hasText: 'dlrow olleH' }).waitFor();
    const [accepted] = await resend.accepted();
    await resend.postDeliveryEvent('bounced', accepted!.id);
    await page.locator('.reply .pill', { hasText: 'bounced' }).waitFor();
    await inList('a question').getByText('Not delivered').waitFor();
    expect(problems).toEqual([]);
  });

  it('leads from a sender to the whole life of the email, and puts it back', async () => {
    await deliver('desk', 'is anybody there', { from: 'Bob <bob@sender.example>' });
    await open();
    await inList('is anybody there').locator('[data-state="parked"]').waitFor();
    await page.getByLabel('Find mail').fill('BOB@sender');
    await page.keyboard.press('Enter');
    await page.locator('.found .list-item').click();
    const life = page.locator('.panel .trace');
    await life.getByText('dead-letter (tool.threw)').waitFor();
    expect(await life.innerText()).toContain('the desk is closed');
    await writeFile(toolsFile, TOOLS.replace(/throw[^;]*/, "return 'the desk is open'"));
    await page.getByRole('link', { name: 'Dead letters' }).click();
    const letter = page.locator('[data-dead-letter="desk#0"]');
    await letter.getByText('the desk is closed').waitFor();
    await page.getByRole('link', { name: 'Health' }).click();
    await page.locator('.facts [data-status="live"]').nth(1).waitFor();
    await page.getByRole('link', { name: 'Dead letters' }).click();
    await letter.getByRole('button', { name: 'Redrive' }).click();
    await letter.getByText('Put back').waitFor();
    await inList('is anybody there').locator('[data-state="answered"]').waitFor();
    await inList('is anybody there').click();
    await page.locator('.reply .letter-text', { hasText: 'the desk is open' }).waitFor();
    await page.locator('summary', { hasText: 'The whole life' }).click();
    await page.locator('.trace').getByText('redrive by a person').waitFor();
    expect(
      (await resend.accepted()).filter(({ payload }) => payload.text === 'the desk is open'),
    ).toHaveLength(1);
    expect(problems).toEqual([]);
  });

  it('says why a revision was refused, as soon as it was', async () => {
    await open();
    await page.locator('.lags').waitFor();
    expect(await page.locator('#refusal').isVisible()).toBe(false);
    await writeFile(toolsFile, 'export const broken = (email => 1;\n');
    await page.locator('#refusal pre', { hasText: 'index.ts:1:' }).waitFor();
    expect(await page.locator('#refusal').innerText()).toContain('is still live');
    const { tools: told } = (await (
      await fetch(`${daemon.url}/api/mailbox`, { headers: { Authorization: `Bearer ${TOKEN}` } })
    ).json()) as { tools: { live: { inboxes: string[] }; refused: { at: string; error: string } } };
    expect(told).toMatchObject({ live: { inboxes: ['desk', 'reverser', 'silent'] } });
    expect(told.refused.error).toContain('index.ts:1:');
    await writeFile(toolsFile, TOOLS);
    await page.locator('#refusal').waitFor({ state: 'hidden' });
  });

  it('makes nothing of what a hostile mail says', async () => {
    const encoded = `=?utf-8?b?${Buffer.from(HOSTILE).toString('base64')}?=`;
    const from = `"${HOSTILE.replaceAll('"', '\\"')}" <eve@sender.example>`;
    await deliver('desk', 'hostile', { subject: encoded, text: HOSTILE, from });
    await open();
    const item = page.locator('#list .list-item', { hasText: 'onerror' });
    await item.locator('[data-state="parked"]').waitFor();
    await item.click();
    await page.locator('.letter-text', { hasText: 'onerror' }).waitFor();
    await page.locator('summary', { hasText: 'The whole life' }).click();
    await page.locator('.trace').getByText('dead-letter').waitFor();
    await page.getByLabel('Find mail').fill(HOSTILE.slice(0, 20));
    await page.keyboard.press('Enter');
    await page.locator('.found .list-item', { hasText: 'onerror' }).waitFor();
    expect(await page.locator('main script, main img, nav script, nav img').count()).toBe(0);
    expect(await page.title()).not.toBe('pwned');
    expect(problems).toEqual([]);
  });

  // It was said to be being fetched, for ever.
  it('says of a mail for another domain that it was not fetched', async () => {
    await resend.deliver(plainMail({ to: 'desk@elsewhere.example', id: 'astray', subject: 'astray' }));
    await open();
    await inList('astray').locator('[data-state="not-answered"]').waitFor();
    await inList('astray').click();
    expect(await page.locator('.letter').innerText()).toContain('It was not fetched.');
  });

  it('fits a phone: nothing is wider than the screen', async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    for (const fragment of ['', '#health', '#dead-letters', '#find=sender']) {
      await open(fragment);
      await page.locator('body:not([data-view="loading"])').waitFor();
      if (fragment !== '') await page.locator('.panel-content > :not(.muted)').first().waitFor();
      const width = await page.evaluate('document.documentElement.scrollWidth');
      expect(width, fragment).toBeLessThanOrEqual(360);
    }
  });
});
