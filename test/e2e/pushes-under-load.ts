/**
 * Pushes to a real bare repository while mail comes in: the daemon, the webhooks and Resend's stand-in as real
 * processes. Each good push answers with a mark of its own; each fifth is broken. What came of it is left to
 * those who look: the test and the bench. More mail may be written than the machine answers meanwhile: what is left
 * is waited for as long as answers come.
 */
import { createHmac, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalStoreReadOnly } from '../../src/streams/local-store.ts';
import { spawnResendStandIn } from '../resend-stand-in/client.ts';
import type { AcceptedMail, ResendStandIn } from '../resend-stand-in/contract.ts';
import { createBareRepository } from '../runner/sync/bare-repository.ts';
import type { BareRepository } from '../runner/sync/bare-repository.ts';
import { readBodies } from '../streams/store-reading.ts';
import { freePort, startDaemon, temporaryDirectory } from './daemon.ts';
import type { Daemon } from './daemon.ts';
import { plainMail } from './mail.ts';

const RESEND_SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const GIT_SECRET = 'a-long-random-word';
const BROKEN_EVERY = 5;
const VERDICT_TIMEOUT_MS = 120_000;
/** Without a further answer for so long, what is not answered is lost. */
const NO_PROGRESS_MS = 60_000;
const LOOK_EVERY_MS = 20;
const COUNT_EVERY_MS = 500;
const PACE_MS = 5;

export interface PushLoad {
  readonly pushes: number;
  /** They begin by the clock, however long the ones before take. */
  readonly mailsPerSecond: number;
  /** Hears of each push, and of what is left to be answered. */
  readonly tell?: (line: string) => void;
}

export interface PushOutcome {
  /** `push 3`, as its answers begin. */
  readonly mark: string;
  readonly status: string;
  readonly error: string | null;
  readonly revision: string;
  /** From the webhook to the record on `tools`, and to the first answer with its mark; null without one. */
  readonly decidedMs: number;
  readonly answeredMs: number | null;
}

export interface LoadOutcome {
  readonly pushes: readonly PushOutcome[];
  /** Mails that were written, taken by the webhook or not, and how long that went on. */
  readonly offered: number;
  readonly writingMs: number;
  /** From the end of the writing to the last answer. */
  readonly drainMs: number;
  /** Text of each mail that the webhook took → the email's id. */
  readonly mails: ReadonlyMap<string, string>;
  /** `push 3: mail 17`, as Resend's stand-in took them. */
  readonly answers: readonly string[];
  /** Email id → the revision that its run says. */
  readonly revisionOf: ReadonlyMap<string, string>;
}

const tools = (mark: string) => ({
  'tools/index.ts': `import type { Email } from 'millrace';
    export const echo = (email: Email) => '${mark}: ' + email.text.trim();`,
});

export async function pushUnderLoad({ pushes, mailsPerSecond, tell }: PushLoad): Promise<LoadOutcome> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const repository = stack.use(await createBareRepository());
  const port = await freePort();
  const resend = await spawnResendStandIn({
    apiKey: 're_pushes',
    webhook: { url: `http://127.0.0.1:${port}/webhooks/resend`, secret: RESEND_SECRET },
  });
  stack.defer(() => resend.stop());
  await repository.push(tools('push 0'));
  const daemon = await startDaemon({
    MAIL_DOMAIN: 'agents.example',
    RESEND_API_KEY: 're_pushes',
    RESEND_BASE_URL: resend.url,
    RESEND_WEBHOOK_SECRET: RESEND_SECRET,
    DATA_DIR: join(directory.path, 'data'),
    PORT: String(port),
    TOOLS_REPO: repository.path,
    GIT_WEBHOOK_SECRET: GIT_SECRET,
    LOG_LEVEL: 'warn',
  });
  stack.defer(async () => void (await daemon.stop()));
  const writing = startWriting(resend, mailsPerSecond);
  const decided: Decided[] = [];
  for (let number = 1; number <= pushes; number++) {
    const push = await pushOne(repository, daemon, number);
    decided.push(push);
    tell?.(`${push.mark}: ${push.record.status} after ${push.decidedMs - push.announcedMs} ms`);
  }
  const written = await writing.end();
  const { accepted, drainMs } = await answersTo(written.mails, { resend, tell });
  // It ends what it is at: what would be a second answer has left by then, and the last run is on record.
  await daemon.stop();
  accepted.push(...(await resend.accepted(accepted.length)));
  return {
    ...written,
    drainMs,
    answers: accepted.map(({ payload }) => payload.text?.trim() ?? ''),
    revisionOf: await revisionsIn(daemon.dataDir),
    pushes: decided.map((push) => outcomeOf(push, accepted)),
  };
}

interface Decided {
  mark: string;
  announcedMs: number;
  decidedMs: number;
  record: ToolsBody;
}

function outcomeOf(push: Decided, accepted: readonly AcceptedMail[]): PushOutcome {
  const { mark, announcedMs, decidedMs, record } = push;
  const at = accepted.find(({ payload }) => payload.text?.startsWith(`${mark}:`))?.at;
  const answeredMs = at === undefined ? null : Date.parse(at) - announcedMs;
  const { status, error, revision } = record;
  return { mark, status, error, revision, decidedMs: decidedMs - announcedMs, answeredMs };
}

/** What was accepted for delivery once every mail is answered, or no further answer comes. */
async function answersTo(
  mails: ReadonlyMap<string, string>,
  { resend, tell }: { resend: ResendStandIn; tell: PushLoad['tell'] },
): Promise<{ accepted: AcceptedMail[]; drainMs: number }> {
  const accepted: AcceptedMail[] = [];
  const open = new Set(mails.keys());
  const sinceMs = Date.now();
  let lastMs = sinceMs;
  while (open.size > 0 && Date.now() - lastMs < NO_PROGRESS_MS) {
    const more = await resend.accepted(accepted.length);
    for (const { payload } of more) open.delete(payload.text?.trim().replace(/^push \d+: /, '') ?? '');
    accepted.push(...more);
    if (more.length > 0) lastMs = Date.now();
    tell?.(`${open.size} mails are left to be answered`);
    if (open.size > 0) await pause(COUNT_EVERY_MS);
  }
  return { accepted, drainMs: lastMs - sinceMs };
}

interface ToolsBody {
  kind: string;
  status: string;
  revision: string;
  error: string | null;
  commit?: { id: string };
}

async function pushOne(repository: BareRepository, daemon: Daemon, number: number): Promise<Decided> {
  const mark = `push ${number}`;
  const broken = { 'tools/index.ts': `export const echo = (): number => '${mark}: broken';` };
  const id = await repository.push(number % BROKEN_EVERY === 0 ? broken : tools(mark), { message: mark });
  const body = JSON.stringify({ ref: 'refs/heads/main' });
  const signature = createHmac('sha256', GIT_SECRET).update(body).digest('hex');
  const headers = { 'x-hub-signature-256': `sha256=${signature}` };
  const announcedMs = Date.now();
  const announce = (): Promise<Response> =>
    fetch(`${daemon.url}/webhooks/git`, { method: 'POST', headers, body });
  // As with the mails: a connection that was kept may be gone by now. To hear of a push twice changes nothing.
  const response = await announce().catch(announce);
  if (response.status !== 202) throw new Error(`the webhook was answered by ${response.status}`);
  const record = await verdictOn(daemon.dataDir, id);
  return { mark, announcedMs, decidedMs: Date.now(), record };
}

async function verdictOn(dataDir: string, id: string): Promise<ToolsBody> {
  for (const sinceMs = Date.now(); Date.now() - sinceMs < VERDICT_TIMEOUT_MS;) {
    const found = (await bodies<ToolsBody>(dataDir, 'tools')).find(({ commit }) => commit?.id === id);
    if (found) return found;
    await pause(LOOK_EVERY_MS);
  }
  throw new Error(`nothing was said of ${id}`);
}

async function revisionsIn(dataDir: string): Promise<Map<string, string>> {
  const runs = await bodies<{ facts?: { emailId?: string; revision?: string } }>(dataDir, 'runs/echo');
  return new Map(runs.map(({ facts }) => [facts?.emailId ?? '', facts?.revision ?? '']));
}

async function bodies<T>(dataDir: string, name: string): Promise<T[]> {
  const store = await openLocalStoreReadOnly({ clock: systemClock }, { directory: dataDir });
  try {
    return (await readBodies(store.stream(name))).map((body) => JSON.parse(body) as T);
  } finally {
    await store.close();
  }
}

/** Each mail is of a person of its own, whom no cap on replies meets. */
function startWriting(
  resend: ResendStandIn,
  mailsPerSecond: number,
): { end(): Promise<Pick<LoadOutcome, 'mails' | 'offered' | 'writingMs'>> } {
  const sinceMs = performance.now();
  const underWay: Promise<void>[] = [];
  const mails = new Map<string, string>();
  const ending = new AbortController();
  const write = async (number: number): Promise<void> => {
    const text = `mail ${number}`;
    const emailId = randomUUID();
    const from = `Ann <ann${number}@sender.example>`;
    const raw = plainMail({ to: 'echo@agents.example', id: `m${number}`, from, text });
    const options = { emailId, svixId: `msg_${emailId}`, retryDelaysMs: [100, 100, 1_000] };
    // A connection to the stand-in may be lost on a machine that is late with everything: the same event again.
    const { status } = await resend.deliver(raw, options).catch(() => resend.deliver(raw, options));
    if (status === 200) mails.set(text, emailId);
  };
  const writing = (async () => {
    while (!ending.signal.aborted) {
      const due = ((performance.now() - sinceMs) * mailsPerSecond) / 1_000;
      while (underWay.length < due) underWay.push(write(underWay.length));
      await pause(PACE_MS);
    }
    await Promise.all(underWay);
  })();
  return {
    async end() {
      ending.abort();
      const writingMs = performance.now() - sinceMs;
      await writing;
      return { mails, offered: underWay.length, writingMs };
    },
  };
}
