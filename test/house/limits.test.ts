/** The table of limits in docs/threat-model.md against the limits that a tool may set. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { settableLimits } from '../../src/runner/tool-settings.ts';

const rows = readFileSync(new URL('../../docs/threat-model.md', import.meta.url), 'utf8')
  .split('\n')
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .flatMap(([, , standard = '', ceiling = '', setting = '']) =>
    /^`\w+`$/.test(setting) ? [{ setting: setting.slice(1, -1), standard, ceiling }] : [],
  );

const numberIn = (cell: string): number => Number(/^[\d,]+/.exec(cell)?.[0].replaceAll(',', ''));

it('names each with its default and its ceiling', () => {
  const documented = rows.map(({ setting, standard, ceiling }) => [
    setting,
    { default: numberIn(standard), max: numberIn(ceiling) },
  ]);
  const real = Object.entries(settableLimits).map(([name, { default: standard, max }]) => [
    name,
    { default: standard, max },
  ]);
  expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(real));
});
