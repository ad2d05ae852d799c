/** Refused requests in the log: told, and not one line each. */
import { expect, it } from 'vitest';
import { createRefusalLog } from '../../src/ingest/refusal-log.ts';
import { Refusal } from '../../src/ingest/webhook-body.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';

it('tells of each reason once a minute, and how many there were', () => {
  const lines: string[] = [];
  const log = createLog('debug', { write: (line) => lines.push(line) });
  let nowMs = 0;
  const tell = createRefusalLog(
    { clock: { ...systemClock, monotonicMs: () => nowMs }, log },
    'webhook-refused',
  );
  for (let i = 0; i < 1000; i++) tell(new Refusal(400, 'the body broke off', new Error('gone')));
  tell(new Refusal(503, 'the event could not be stored now'));
  nowMs = 60_000;
  tell(new Refusal(400, 'the body broke off'));
  expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
    {
      level: 40,
      msg: 'webhook-refused',
      status: 400,
      reason: 'the body broke off',
      cause: 'gone',
      count: 1,
    },
    { level: 50, status: 503, count: 1 },
    { level: 40, status: 400, count: 1000 },
  ]);
});
