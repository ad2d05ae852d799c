/**
 * `millrace dead-letters`, `millrace redrive`, `millrace replay`: what they ask the daemon, page by page, and what
 * they print. A command that breaks off can be given again: what was put back is not put back twice. A replay is one by
 * its id, because to replay the same mail another time is a wish of its own: it prints the id, and goes on under it.
 */
import { MillraceError } from '../platform/errors.ts';
import { backoffMs } from '../platform/retry.ts';
import { allStreams } from './admin-client.ts';
import type { AdminClient } from './admin-client.ts';
import type { DeadLetter, DeadLetterPage } from './dead-letters.ts';
import type { RedrivePage, RedrivenDeadLetter } from './redrive.ts';
import type { ReplayPage, ReplayedMail } from './replay.ts';

export interface CommandDeps {
  client: AdminClient;
  /** Takes one line, or several; what comes out of mail is made safe for a terminal there. */
  print: (text: string) => void;
  /** Asks a person; false where there is none to be asked. */
  confirm: (question: string) => Promise<boolean>;
  /** A fresh name for one replay. */
  newId: () => string;
  sleep: (ms: number) => Promise<void>;
}

export interface SeqNumRange {
  readonly from: number;
  readonly to: number;
}

/** What the options of the command line name: a stage, or an inbox. */
export interface StageOptions {
  stage?: 'receive' | 'outbox' | undefined;
  inbox?: string | undefined;
}

/** Beyond, the command says so: the API can be asked for the rest. */
const MAX_LISTED = 10_000;
const RUNS = 'runs/';
/** A page that the daemon could not do just now is asked for again: what it did before counts once. */
const MAX_ATTEMPTS = 5;
const BACKOFF = { baseMs: 500, maxMs: 8_000 };

async function postPage<T>(
  { client, sleep }: Pick<CommandDeps, 'client' | 'sleep'>,
  path: string,
  body: unknown,
): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await client.post<T>(path, body);
    } catch (error) {
      const isTransient = error instanceof MillraceError && error.kind === 'transient';
      if (!isTransient || attempts === MAX_ATTEMPTS) throw error;
      await sleep(backoffMs(attempts, BACKOFF, () => 1));
    }
  }
}

/** Of all stages, or of one. */
export async function printDeadLetters(
  { client, print }: CommandDeps,
  options: StageOptions & { open: boolean; json: boolean },
): Promise<void> {
  const stages = (options.stage ?? options.inbox) ? [stageQuery(options)] : await allStages(client);
  const found: DeadLetter[] = [];
  for (const stage of stages) {
    for (let from: number | null = 0; from !== null && found.length < MAX_LISTED;) {
      const query = { ...stage, from, open: options.open ? 'true' : undefined };
      const page: DeadLetterPage = await client.get('/api/admin/dead-letters', query);
      found.push(...page.deadLetters);
      from = page.next;
    }
  }
  if (options.json) return print(JSON.stringify(found, null, 2));
  for (const deadLetter of found) print(deadLetterText(deadLetter));
  const open = found.filter(({ redrivenAt }) => redrivenAt === null).length;
  const more = found.length >= MAX_LISTED ? ' These are not all: name one inbox or stage.' : '';
  print(`${counted(found.length, 'dead letter')}, ${open} not put back.${more}`);
}

function deadLetterText({ stage, inbox, error, ...letter }: DeadLetter): string {
  const where = inbox === null ? `--stage ${stage}` : `--inbox ${inbox}`;
  const redriven = letter.redrivenAt === null ? '' : `, put back ${letter.redrivenAt}`;
  const email = letter.emailId === null ? '' : `, email ${letter.emailId}`;
  return [
    `${letter.at}  ${where} --seq ${letter.seqNum}${email}${redriven}`,
    `  ${error?.code ?? letter.reason}: ${error?.message ?? 'no message'} (${counted(letter.attempts, 'attempt')})`,
    ...(error?.hint == null ? [] : [`  ${error.hint}`]),
    '',
  ].join('\n');
}

export interface RedriveOptions extends StageOptions {
  all?: boolean | undefined;
  seq?: SeqNumRange | undefined;
  notSent?: boolean | undefined;
}

export async function redriveDeadLetters(deps: CommandDeps, options: RedriveOptions): Promise<void> {
  const { print } = deps;
  if ((options.all === true) === (options.seq !== undefined))
    throw usage('say which dead letters: --all, or --seq N or N..M');
  const stage = stageQuery(options);
  const seqNums = options.seq ?? 'all';
  const found: RedrivenDeadLetter[] = [];
  for (let from: RedrivePage['next'] | number = 0; from !== null;) {
    const body = { ...stage, seqNums, from, isKnownUnsent: options.notSent === true };
    const page: RedrivePage = await postPage(deps, '/api/admin/redrive', body);
    for (const { seqNum, emailId, status } of page.deadLetters)
      print(`${seqNum}  ${status.replaceAll('-', ' ')}${emailId === null ? '' : `  email ${emailId}`}`);
    found.push(...page.deadLetters);
    from = page.next;
  }
  if (found.length === 0) {
    await assertHasDeadLetters(deps.client, options);
    return print('No dead letter is left to put back.');
  }
  const redriven = found.filter(({ status }) => status === 'redriven').length;
  print(`${counted(redriven, 'dead letter')} put back.`);
  if (options.stage !== 'outbox' || redriven === 0) return;
  print(
    'Each goes out under the idempotency key that it had. ' +
      (options.notSent === true
        ? 'The provider is not asked whether it has been sent before, as you said.'
        : 'What the provider may have taken at an earlier attempt is not sent twice.'),
  );
}

/** @throws MillraceError `rerun.no_dead_letter`, `rerun.no_such_inbox` (invalid) where a name is a mistake */
async function assertHasDeadLetters(client: AdminClient, { inbox, seq }: RedriveOptions): Promise<void> {
  if (inbox !== undefined && !(await hasStreams(client, inbox)))
    throw new MillraceError('invalid', 'rerun.no_such_inbox', `no mail ever came for the inbox ${inbox}`, {
      hint: '`millrace streams ls inbox/` names those that have mail.',
    });
  if (seq === undefined) return;
  const { from, to } = seq;
  const range = from === to ? `number ${from}` : `a number from ${from} to ${to}`;
  throw new MillraceError('invalid', 'rerun.no_dead_letter', `there is no dead letter of ${range}`, {
    hint: '`millrace dead-letters` lists them.',
  });
}

async function hasStreams(client: AdminClient, inbox: string): Promise<boolean> {
  for (const name of [`inbox/${inbox}`, `${RUNS}${inbox}`]) {
    const query = { prefix: name, limit: 1 };
    const { names }: { names: string[] } = await client.get('/api/admin/streams', query);
    if (names[0] === name) return true;
  }
  return false;
}

export interface ReplayOptions {
  inbox?: string | undefined;
  unrouted?: boolean | undefined;
  to?: string | undefined;
  seq?: SeqNumRange | undefined;
  since?: string | undefined;
  email?: string | undefined;
  id?: string | undefined;
  yes?: boolean | undefined;
}

/** First looks what would run, asks, then runs it and says of each page what became of it. */
export async function replayMails(deps: CommandDeps, options: ReplayOptions): Promise<void> {
  const { print } = deps;
  const what = replayQuery(options);
  const id = options.id ?? deps.newId();
  const run = async (isDryRun: boolean, onMail: (mail: ReplayedMail) => void): Promise<number> => {
    const seen = new Set<string>();
    for (let page: ReplayPage['next'] | undefined; page !== null;) {
      const body = { ...what, id, isDryRun, page: page ?? null };
      const answer: ReplayPage = await postPage(deps, '/api/admin/replay', body);
      for (const mail of answer.mails) {
        if (!seen.has(mail.key)) onMail(mail);
        seen.add(mail.key);
      }
      page = answer.next;
    }
    return seen.size;
  };
  const selected = await run(true, () => {});
  if (selected === 0) return print('There is no such mail.');
  const inbox = options.inbox ?? options.to;
  const question =
    options.unrouted === true
      ? `${counted(selected, 'mail')} for no tool will run in ${inbox}, and may be answered. Go on?`
      : `${counted(selected, 'mail')} will run again in ${inbox}, and may be answered again. Go on?`;
  if (options.yes !== true && !(await deps.confirm(question))) {
    throw new MillraceError('invalid', 'rerun.not_confirmed', 'nothing was run', {
      hint: 'Answer y, or give --yes where there is no terminal.',
    });
  }
  print(`Should this break off: the same command with --id ${id} goes on, and runs no mail twice.`);
  let replayed = 0;
  await run(false, ({ seqNum, key, status }) => {
    if (status === 'replayed') replayed += 1;
    print(`${seqNum}  ${status.replaceAll('-', ' ')}  ${key}`);
  });
  print(`${counted(replayed, 'mail')} put on inbox/${inbox}.`);
}

function replayQuery({ inbox, unrouted, to, seq, since, email }: ReplayOptions): Record<string, unknown> {
  if (unrouted === true ? to === undefined || inbox !== undefined : inbox === undefined || to !== undefined)
    throw usage('say whose mail: --inbox NAME, or --unrouted --to NAME');
  if (unrouted !== true && (seq ?? since ?? email) === undefined)
    throw usage('say which mail: --seq N or N..M, --since TIME, or --email ID');
  // `Date.parse` alone takes "7" for a day of 2001, and so for all mail.
  if (since !== undefined && (!/^\d{4}-\d\d-\d\d/.test(since) || Number.isNaN(Date.parse(since))))
    throw usage('--since takes a time such as 2026-11-22T10:00:00Z');
  const of = unrouted === true ? { unroutedTo: to } : { inbox };
  const time = since === undefined ? {} : { since: new Date(since).toISOString() };
  return { ...of, seqNums: seq, emailId: email, ...time };
}

function stageQuery({ stage, inbox }: StageOptions): { stage?: string; inbox?: string } {
  if (stage !== undefined && inbox === undefined) return { stage };
  if (inbox !== undefined && stage === undefined) return { inbox };
  throw usage('say where: --inbox NAME, or --stage receive or outbox');
}

async function allStages(client: AdminClient): Promise<{ stage?: string; inbox?: string }[]> {
  const names = await allStreams(client, RUNS);
  return [
    { stage: 'receive' },
    ...names.map((name) => ({ inbox: name.slice(RUNS.length) })),
    { stage: 'outbox' },
  ];
}

function usage(message: string): MillraceError {
  return new MillraceError('invalid', 'admin.usage', message, {
    hint: '`millrace help COMMAND` lists its options.',
  });
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
