/** Which function serves which inbox, and which names are no inbox whatever is exported. */
import { describe, expect, it } from 'vitest';
import { inboxesOf } from '../../src/runner/tool-inboxes.ts';

const served = (...exports: string[]) => Object.fromEntries(inboxesOf(exports));

describe('inboxes of tools', () => {
  it('are an export’s name in lower case, and with hyphens where it has capitals', () => {
    expect(served('dailyReport')).toEqual({ 'daily-report': 'dailyReport', dailyreport: 'dailyReport' });
    expect(served('daily-report')).toEqual({ 'daily-report': 'daily-report' });
    expect(served('default')).toEqual({ default: 'default' });
  });

  it('belong to the export of the very name, before all that resemble it, in any order', () => {
    const all = { 'daily-report': 'daily-report', dailyreport: 'dailyReport' };
    expect(served('dailyReport', 'daily-report')).toEqual(all);
    expect(served('daily-report', 'dailyReport')).toEqual(all);
    expect(served('dailyReport', 'dailyreport', 'daily-report')).toEqual({
      'daily-report': 'daily-report',
      dailyreport: 'dailyreport',
    });
  });

  it.each([
    [['DailyReport', 'dailyReport'], 'DailyReport and dailyReport would both serve daily-report@'],
    [['echoTwo', 'ECHO', 'Echo'], 'ECHO and Echo would both serve echo@'],
    [['Unrouted'], 'Unrouted: mail for no tool has this name'],
  ])('are not guessed at where two functions resemble them alike: %j', (exports, message) => {
    expect(() => inboxesOf(exports)).toThrow(
      expect.objectContaining({ code: 'tools.inbox_conflict', message }) as Error,
    );
  });

  it('are one however their letters are composed', () => {
    expect(inboxesOf(['cafe\u0301', 'Caf\u00e9', 'caf\u00e9']).get('caf\u00e9')).toBe('caf\u00e9');
  });

  it('are never an inherited property', () => {
    const inboxes = inboxesOf(['echo']);
    for (const name of ['constructor', 'toString', 'tostring', '__proto__', 'hasOwnProperty', 'valueOf'])
      expect(inboxes.get(name)).toBeUndefined();
  });

  it('may be called as inherited properties are, where a function is exported under the name', () => {
    expect(served('constructor', 'toString')).toEqual({
      constructor: 'constructor',
      'to-string': 'toString',
      tostring: 'toString',
    });
    expect(inboxesOf(['__proto__', '_private', '$helper']).size).toBe(0);
  });
});
