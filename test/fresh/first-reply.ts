/**
 * What a newcomer does with the link that `npm start` printed, in a real browser: opens it, sends the email that
 * stands there ready, and waits for the reply on the screen. Run in the network of the fresh machine:
 *   node test/fresh/first-reply.ts LINK SCREENSHOT.png
 */
import { launchBrowser } from '../admin/browser.ts';

const [link = '', screenshot = ''] = process.argv.slice(2);
const browser = await launchBrowser();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 860 } });
  page.setDefaultTimeout(30_000);
  await page.goto(link);
  await page.getByRole('button', { name: 'reverser', pressed: true }).waitFor();
  await page.getByRole('button', { name: 'Send', exact: true }).click();
  const reply = await page.locator('.reply .letter-text').innerText();
  await page.screenshot({ path: screenshot });
  if (reply !== 'dlrow olleH') throw new Error(`the reply on the screen is ${JSON.stringify(reply)}`);
} finally {
  await browser.close();
}
