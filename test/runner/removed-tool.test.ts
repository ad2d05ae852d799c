/** Mail that waits for a tool which a push has removed: parked with the reason, in its inbox, for when it is back. */
import { expect, it } from 'vitest';
import { headerOf, KEY_HEADER } from '../../src/streams/records.ts';
import { readAll } from '../streams/store-reading.ts';
import { useRunnerWorld } from './runner-world.ts';

const world = useRunnerWorld();

it('a removed tool parks its mail, and the tool that is back answers what is put back', async () => {
  await world.mail('gone', 'first');
  await world.start("export const other = () => 'x'; export const constructor = () => 'inherited?';");
  const [parked] = await world.settled('gone', 1);
  expect(parked).toMatchObject({ outcome: 'dead-letter', reason: 'tool.missing' });
  expect(await world.outbox()).toEqual([]);
  const inbox = world.store().stream('inbox/gone');
  const [kept] = await readAll(inbox);
  await world.stop();

  await world.start("export const gone = (email) => 'back for ' + email.text.trim();");
  const key = `${headerOf(kept!, KEY_HEADER)}/redrive`;
  await inbox.append([{ headers: [[KEY_HEADER, key]], body: kept!.body }]);
  await world.settled('gone', 2);
  const [answer] = await world.outbox();
  expect(answer?.request.text).toContain('back for first');
});
