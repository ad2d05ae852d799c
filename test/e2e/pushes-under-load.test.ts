/**
 * Six pushes, one of them broken, while mail comes in: every mail is answered once, by the revision that its run
 * names, and never by what was refused. `npm run bench:pushes` does it forty times at 200 mails a second, and says
 * how long a push takes.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { pushUnderLoad } from './pushes-under-load.ts';
import type { LoadOutcome } from './pushes-under-load.ts';

const PUSHES = 6;
const BROKEN = ['push 5'];
/** As many as a busy machine manages beside building six revisions. */
const MAILS_PER_SECOND = 25;
let outcome: LoadOutcome;

beforeAll(async () => {
  outcome = await pushUnderLoad({ pushes: PUSHES, mailsPerSecond: MAILS_PER_SECOND });
}, 300_000);

describe('pushes while mail comes', () => {
  it('go live, or are refused with the reason', () => {
    expect(outcome.pushes).toHaveLength(PUSHES);
    for (const { mark, status, error } of outcome.pushes) {
      const isBroken = BROKEN.includes(mark);
      expect({ mark, status }).toEqual({ mark, status: isBroken ? 'refused' : 'live' });
      expect(error ?? '').toMatch(isBroken ? /^tools\/index\.ts:1:\d+: error TS2322: / : /^$/);
    }
  });

  it('lose no mail, and have none answered twice', () => {
    const answered = outcome.answers.map((answer) => answer.replace(/^push \d+: /, ''));
    expect(answered.toSorted()).toEqual([...outcome.mails.keys()].toSorted());
    expect(answered.length).toBeGreaterThan(PUSHES);
  });

  it('answer each mail by the revision that its run names', () => {
    const markOf = new Map(outcome.pushes.map(({ revision, mark }) => [revision, mark]));
    for (const answer of outcome.answers) {
      const [mark = '', text = ''] = answer.split(': ');
      const revision = outcome.revisionOf.get(outcome.mails.get(text) ?? '') ?? '';
      expect({ answer, mark: markOf.get(revision) ?? 'push 0' }).toEqual({ answer, mark });
      expect(BROKEN).not.toContain(mark);
    }
  });

  it('are what later mail is answered by', () => {
    const marks = new Set(outcome.answers.map((answer) => answer.split(':')[0]));
    expect(marks.size).toBeGreaterThan(1);
  });
});
