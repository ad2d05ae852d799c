import { describe, expect, it } from 'vitest';
import { matrixTable } from './matrix-table.ts';
import { emptyTally } from './tally.ts';

describe('the table of the matrix', () => {
  it('has a row for each point, and the sum', () => {
    const tally = {
      ...emptyTally(),
      accepted: 3,
      answeredOnce: 1,
      lost: 2,
    };
    const recoveries = [1000, 3000, 2000].map((ms) => ({ firstAnswerMs: ms, settledMs: 2 * ms }));
    const row = { streams: 'local' as const, kills: 3, tally, recoveries };
    const lines = matrixTable([
      { ...row, point: 'before event' },
      { ...row, point: 'after event' },
    ]).split('\n');
    expect(lines).toHaveLength(5);
    expect(lines[2]).toBe('| local | before event | 3 | 3 | 1 | 2 | 0 | 0 | 0 | 2.0, 3.0 | 4.0, 6.0 |');
    expect(lines[4]).toBe('| all |  | 6 | 6 | 2 | 4 | 0 | 0 | 0 |  |  |');
  });
});
