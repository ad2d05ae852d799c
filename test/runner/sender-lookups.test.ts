/** How often the DNS is asked for what strangers name, and how long anybody waits for it. */
import { expect, it } from 'vitest';
import { createSparingLookup } from '../../src/runner/sender-lookups.ts';
import { createManualClock } from '../streams/manual-clock.ts';

function lookups() {
  const clock = createManualClock();
  const asked: string[] = [];
  const answers: PromiseWithResolvers<string[]>[] = [];
  const lookUp = (name: string): Promise<string[]> => {
    const answer = Promise.withResolvers<string[]>();
    asked.push(name);
    answers.push(answer);
    return answer.promise;
  };
  return { clock, asked, answers, look: createSparingLookup({ clock, lookUp }) };
}

it('asks once for a name that many want, and lets none of them wait longer than a second', async () => {
  const { clock, asked, look } = lookups();
  const all = Array.from({ length: 60 }, () => look('s._domainkey.a.example'));
  clock.advance(1_000);
  expect(new Set(await Promise.all(all))).toEqual(new Set(['failed']));
  expect(await look('s._domainkey.a.example')).toBe('failed');
  expect(asked.length).toBe(1);
});

it('has what comes later for who asks then, for a minute', async () => {
  const { clock, asked, answers, look } = lookups();
  const early = look('a.example');
  clock.advance(1_000);
  expect(await early).toBe('failed');
  answers[0]!.resolve(['found']);
  await expect.poll(() => look('a.example')).toEqual(['found']);
  clock.advance(60_000);
  void look('a.example');
  expect(asked.length).toBe(2);
});

it('asks again for what has failed, at first soon and then once a minute, and holds up one caller for it', async () => {
  const { clock, asked, answers, look } = lookups();
  for (let second = 0; second < 600; second++) {
    const one = look('a.example');
    const other = second > 0 ? await look('a.example') : 'failed';
    expect(other).toBe('failed');
    answers.at(-1)!.reject(new Error('SERVFAIL'));
    expect(await one).toBe('failed');
    clock.advance(1_000);
  }
  expect(asked.length).toBeGreaterThan(10);
  expect(asked.length).toBeLessThan(20);
});

it('has four names of a domain under way at once, and hides no other domain for that', async () => {
  const { asked, answers, look } = lookups();
  const names = Array.from({ length: 10 }, (_, index) => `s${index}._domainkey.a.example`);
  const ofDomain = names.map(look);
  expect(await Promise.all(ofDomain.slice(4))).toEqual(Array.from({ length: 6 }, () => 'failed'));
  void look('_dmarc.b.example');
  expect(asked).toEqual([...names.slice(0, 4), '_dmarc.b.example']);
  answers[0]!.resolve([]);
  expect(await ofDomain[0]).toEqual([]);
  void look(names[9]!);
  expect(asked.at(-1)).toBe(names[9]);
});
