/**
 * Forty pushes while 200 mails a second come in: `npm run bench:pushes [PUSHES] [MAILS_PER_SECOND]`. Not part of the
 * tests: times depend on the machine and on what else it does. It ends when every mail is answered, or when for a minute
 * none was: a machine that takes less than it is offered has a backlog to work off. Printed are the times from the
 * push's webhook to the verdict on `tools` and to the first answer by the new code, what was offered, taken and
 * answered, and what the test of the same name asserts: mails lost, answered twice, answered by another revision
 * than the run names.
 */
import { pushUnderLoad } from '../e2e/pushes-under-load.ts';

const [pushes = 40, mailsPerSecond = 200] = process.argv.slice(2).map(Number);
const TELL_EVERY_MS = 5_000;
let toldMs = 0;
const tell = (line: string): void => {
  if (line.startsWith('push') || performance.now() - toldMs > TELL_EVERY_MS) {
    process.stderr.write(`${line}\n`);
    toldMs = performance.now();
  }
};
const outcome = await pushUnderLoad({ pushes, mailsPerSecond, tell });

const timesOf = (times: readonly (number | null)[]) => {
  const sorted = times.filter((time) => time !== null).toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), max: sorted.at(-1) ?? null };
};
const texts = outcome.answers.map((answer) => answer.replace(/^push \d+: /, ''));
const answered = new Set(texts);
const marks = new Map(outcome.pushes.map(({ revision, mark }) => [revision, mark]));
const byAnother = outcome.answers.filter((answer) => {
  const [mark = '', text = ''] = answer.split(': ');
  const revision = outcome.revisionOf.get(outcome.mails.get(text) ?? '') ?? '';
  return (marks.get(revision) ?? 'push 0') !== mark;
});
const live = outcome.pushes.filter(({ status }) => status === 'live');
const figures = {
  pushes: { live: live.length, refused: outcome.pushes.length - live.length },
  offered: outcome.offered,
  offeredPerSecond: Math.round(outcome.offered / (outcome.writingMs / 1_000)),
  mails: outcome.mails.size,
  answeredPerSecond: Math.round(texts.length / ((outcome.writingMs + outcome.drainMs) / 1_000)),
  backlogWorkedOffInMs: Math.round(outcome.drainMs),
  lost: [...outcome.mails.keys()].filter((text) => !answered.has(text)).length,
  answeredTwice: texts.length - answered.size,
  answeredByAnotherRevision: byAnother.length,
  /** The next push was live before a mail ran on them. */
  liveWithoutAnAnswer: live.filter(({ answeredMs }) => answeredMs === null).map(({ mark }) => mark),
  webhookToLiveMs: timesOf(live.map(({ decidedMs }) => decidedMs)),
  webhookToFirstAnswerMs: timesOf(live.map(({ answeredMs }) => answeredMs)),
};
process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
