/**
 * Forty pushes while 200 mails a second come in: `npm run bench:pushes [PUSHES] [MAILS_PER_SECOND]`. Not part of the
 * tests: times depend on the machine and on what else it does. Printed are the times from the push's webhook to the
 * verdict on `tools` and to the first answer by the new code, and what the test of the same name asserts: mails lost,
 * answered twice, answered by another revision than the run names.
 */
import { pushUnderLoad } from '../e2e/pushes-under-load.ts';

const [pushes = 40, mailsPerSecond = 200] = process.argv.slice(2).map(Number);
const outcome = await pushUnderLoad({ pushes, mailsPerSecond });

const timesOf = (times: readonly (number | null)[]) => {
  const sorted = times.filter((time) => time !== null).toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), max: sorted.at(-1) ?? null };
};
const texts = outcome.answers.map((answer) => answer.replace(/^push \d+: /, ''));
const marks = new Map(outcome.pushes.map(({ revision, mark }) => [revision, mark]));
const byAnother = outcome.answers.filter((answer) => {
  const [mark = '', text = ''] = answer.split(': ');
  const revision = outcome.revisionOf.get(outcome.mails.get(text) ?? '') ?? '';
  return (marks.get(revision) ?? 'push 0') !== mark;
});
const live = outcome.pushes.filter(({ status }) => status === 'live');
const figures = {
  pushes: { live: live.length, refused: outcome.pushes.length - live.length },
  mails: outcome.mails.size,
  lost: [...outcome.mails.keys()].filter((text) => !texts.includes(text)).length,
  answeredTwice: texts.length - new Set(texts).size,
  answeredByAnotherRevision: byAnother.length,
  webhookToLiveMs: timesOf(live.map(({ decidedMs }) => decidedMs)),
  webhookToFirstAnswerMs: timesOf(live.map(({ answeredMs }) => answeredMs)),
};
process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
