/** docs/configuration.md and the code name the same variables, with the same defaults. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseConfig, variableNames } from '../../src/platform/config.ts';

/** Variables of the documented table, in its order; cells without their backticks. */
const documented = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
  .map(([, name = '', , fallback = '', example = '']) => ({ name, fallback, example }));

describe('docs/configuration.md', () => {
  it('lists every variable of the code, and no other', () => {
    const names = documented.map(({ name }) => name);
    expect(names.toSorted()).toEqual([...variableNames, 'TOOL_SECRET_<NAME>'].toSorted());
  });

  it('has examples that are accepted together', () => {
    const env = Object.fromEntries(
      documented.map(({ name, example }) => [name.replace('<NAME>', 'KEY'), example]),
    );
    expect(() => parseConfig(env)).not.toThrow();
  });

  it('has defaults that are the code’s own', () => {
    const { config } = parseConfig({});
    const fallbackOf = Object.fromEntries(
      documented.map(({ name, fallback }) => [name, fallback.split(' ')[0]]),
    );
    expect(fallbackOf).toMatchObject({
      MAIL_DOMAIN: config.domains[0],
      STREAMS: config.streams.kind,
      DATA_DIR: config.dataDir,
      TOOLS_PATH: config.tools.path,
      HOST: config.host,
      PORT: String(config.port),
      RETENTION_DAYS: String(config.retentionDays),
      LOG_LEVEL: config.logLevel,
    });
  });
});
