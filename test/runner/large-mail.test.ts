/** Of large mails the runner works on no more at once than fit into its memory; small ones wait for none of them. */
import { expect, it } from 'vitest';
import { createBudget } from '../../src/platform/budget.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();

const MIB = 1024 * 1024;
const TOOL = `export const size = async (email) => {
  const bytes = await email.attachments[0]?.bytes();
  return \`\${bytes?.length ?? 0} bytes\`;
};`;

function mailWithFile(bytes: number): string {
  return [
    'From: ann@sender.example',
    'To: size@agent.example',
    `Message-ID: <${bytes}@sender.example>`,
    'Content-Type: multipart/mixed; boundary=b',
    '',
    '--b',
    '',
    'See the file.',
    '--b',
    'Content-Disposition: attachment; filename=f.bin',
    '',
    'x'.repeat(bytes),
    '--b--',
    '',
  ].join('\r\n');
}

it('a large mail waits until there is room, a small one does not', async () => {
  const memory = createBudget(3 * MIB);
  const others = await memory.take(2 * MIB, new AbortController().signal);
  await world.start(TOOL, { memory });
  await world.message('size', mailWithFile(2 * MIB));
  const small = await world.message('size', mailWithFile(1_000));
  expect(await world.settled('size', 1)).toMatchObject([{ seqNum: small.seqNum, outcome: 'done' }]);
  others[Symbol.dispose]();
  const outcomes = await world.settled('size', 2);
  expect(outcomes.map(({ outcome }) => outcome)).toEqual(['done', 'done']);
  const replies = (await world.outbox()).map(({ request }) => request.text);
  expect(Number.parseInt(replies[1]!, 10)).toBeGreaterThanOrEqual(2 * MIB);
  expect(memory.taken).toBe(0);
});
