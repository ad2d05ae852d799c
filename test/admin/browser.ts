/**
 * Debian's Chromium for tests of pages. Where it is missing the tests are skipped, loudly, unless
 * `REQUIRE_BROWSER=1` says that it has to be there.
 */
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';
import type { Browser } from 'playwright-core';

const EXECUTABLE = '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export const hasBrowser = existsSync(EXECUTABLE) || process.env['REQUIRE_BROWSER'] === '1';
if (!hasBrowser) {
  process.stderr.write(
    `\nSKIPPED: there is no ${EXECUTABLE}, so no page is tested. Install it: apt-get install chromium\n\n`,
  );
}

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS });
}
