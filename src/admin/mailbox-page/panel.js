/**
 * What an operator looks at besides the conversations: mail that was searched for, the whole life of one, dead
 * letters, and how everything is. Each is asked for when it is opened, and health again while it is shown.
 */
import { getJson } from './api.js';
import { byId, element, timeElement } from './element.js';
import { redriveButton } from './redrive.js';
import { traceElements } from './trace.js';

/** @typedef {import('../stage-lag.ts').StageLag} StageLag */
/** @typedef {import('../dead-letters.ts').DeadLetter} DeadLetter */
/** @typedef {import('../find-mails.ts').FoundMail} FoundMail */
/** @typedef {import('../tool-revisions.ts').ToolRevisions} ToolRevisions */
/** @typedef {{ faults: string[], missingRoles: string[], services: { name: string, isRunning: boolean, failures: number }[], stages: StageLag[] }} Health */

const FOUND_PAGE = 50;
/** Beyond, the page says how to see the rest. */
const MAX_DEAD_LETTERS = 200;
/** Of one stage's journal: each reads many records. */
const MAX_DEAD_LETTER_PAGES = 20;
const SHOWN_REVISIONS = 10;
const REFRESH_MS = 5000;

const panel = byId('panel', HTMLElement);
const title = byId('panel-title', HTMLElement);
const content = byId('panel-content', HTMLElement);

/** The fragment that is shown; what was asked for another one comes too late. @type {string | null} */
let shown = null;

/** What the fragment of the address names, or null where that is no panel. @param {string} fragment */
export function panelOf(fragment) {
  if (fragment === 'health') return { title: 'Health', load: healthElements };
  if (fragment === 'dead-letters') return { title: 'Dead letters', load: deadLetterElements };
  const [, kind, value = ''] = /^(find|trace)=(.*)$/s.exec(fragment) ?? [];
  const text = decoded(value);
  if (kind === 'find') return { title: `Mail with “${text}”`, load: () => foundElements(text) };
  if (kind === 'trace') return { title: 'The whole life of an email', load: () => traceElements(text) };
  return null;
}

/** @param {string} fragment @param {NonNullable<ReturnType<typeof panelOf>>} what */
export function showPanel(fragment, what) {
  panel.hidden = false;
  if (shown === fragment) return;
  shown = fragment;
  title.textContent = what.title;
  document.title = `${what.title}: Millrace`;
  content.replaceChildren(element('p', { class: 'muted' }, 'Looking.'));
  title.focus({ preventScroll: true });
  void fill(fragment, what.load);
}

export function hidePanel() {
  panel.hidden = true;
  shown = null;
  content.replaceChildren();
}

/** @param {string} fragment @param {() => Promise<(Node | null)[]>} load */
async function fill(fragment, load) {
  /** @type {(Node | null)[]} */
  let made;
  try {
    made = await load();
  } catch (error) {
    made = [element('p', { role: 'alert' }, error instanceof Error ? error.message : 'That failed.')];
  }
  if (shown !== fragment) return;
  content.replaceChildren(...made.filter((child) => child !== null));
  if (fragment !== 'health') return;
  // oxlint-disable-next-line no-restricted-globals -- a browser has no Clock
  setTimeout(() => shown === fragment && void fill(fragment, load), REFRESH_MS);
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} text */
async function foundElements(text) {
  const list = element('ul', { class: 'found' });
  const more = element('button', { type: 'button', class: 'button' }, 'Older mail');
  /** @type {number | null} */
  let before = null;
  const load = async () => {
    more.setAttribute('disabled', '');
    const from = before === null ? '' : `&before=${before}`;
    /** @type {{ mails: FoundMail[], next: number | null }} */
    const { mails, next } = await getJson(
      `api/admin/mails?text=${encodeURIComponent(text)}&limit=${FOUND_PAGE}${from}`,
    );
    list.append(...mails.map(foundItem));
    if (list.childElementCount === 0)
      list.append(element('li', { class: 'muted' }, next === null ? 'There is no such mail.' : 'None here.'));
    before = next;
    more.hidden = next === null;
    more.removeAttribute('disabled');
  };
  more.addEventListener('click', () => void load());
  await load();
  return [list, more];
}

/** @param {FoundMail} mail */
function foundItem({ emailId, at, from, to, subject }) {
  return element(
    'li',
    {},
    element(
      'a',
      { class: 'list-item card', href: `#trace=${emailId}` },
      element('span', { class: 'list-line' }, element('b', {}, from), timeElement(at)),
      element('span', { class: 'list-subject' }, subject || 'No subject'),
      element('span', { class: 'list-preview' }, `to ${to.join(', ')}`),
    ),
  );
}

async function deadLetterElements() {
  /** @type {Health} */
  const { stages } = await getJson('api/admin/health');
  const found = [];
  for (const stage of stages) {
    if (found.length >= MAX_DEAD_LETTERS) break;
    found.push(...(await openDeadLetters(stage, MAX_DEAD_LETTERS - found.length)));
  }
  if (found.length === 0) return [element('p', {}, 'Nothing is parked.')];
  const rest =
    found.length < MAX_DEAD_LETTERS
      ? null
      : element('p', {}, 'There may be more: millrace dead-letters --open.');
  return [...found.map(deadLetterCard), rest];
}

/** Those that were not put back. @param {StageLag} stage @param {number} limit */
async function openDeadLetters({ stage, inbox }, limit) {
  const which = inbox === null ? `stage=${stage}` : `inbox=${encodeURIComponent(inbox)}`;
  /** @type {DeadLetter[]} */
  const found = [];
  /** @type {number | null} */
  let from = 0;
  for (let pages = 0; from !== null && pages < MAX_DEAD_LETTER_PAGES && found.length < limit; pages++) {
    const query = `${which}&open=true&from=${from}&limit=${limit - found.length}`;
    const { deadLetters, next } = await getJson(`api/admin/dead-letters?${query}`);
    found.push(...deadLetters);
    from = next;
  }
  return found;
}

/** @param {DeadLetter} letter */
function deadLetterCard({ stage, inbox, seqNum, at, emailId, attempts, reason, error }) {
  const where = inbox === null ? `Parked at ${stage}` : `Parked: ${inbox} failed`;
  const name =
    inbox === null ? { stage: /** @type {'receive' | 'outbox'} */ (stage), seqNum } : { inbox, seqNum };
  return element(
    'div',
    { class: 'card note parked', 'data-dead-letter': `${inbox ?? stage}#${seqNum}` },
    element('p', { class: 'list-line' }, element('span', { class: 'note-title' }, where), timeElement(at)),
    element('pre', { class: 'error-text' }, error?.message ?? reason ?? 'no reason is on record'),
    element(
      'p',
      { class: 'muted' },
      element('code', {}, error?.code ?? reason ?? ''),
      ` #${seqNum}, ${attempts === 1 ? 'one attempt' : `${attempts} attempts`}. ${error?.hint ?? ''} `,
      emailId !== null && element('a', { href: `#trace=${emailId}` }, 'The whole life of this email'),
    ),
    redriveButton(name),
  );
}

async function healthElements() {
  /** @type {[Health, ToolRevisions]} */
  const [health, tools] = await Promise.all([getJson('api/admin/health'), getJson('api/admin/tools')]);
  return [
    wellness(health),
    element('h2', {}, 'What waits'),
    stagesTable(health.stages),
    element('h2', {}, 'Tools'),
    ...toolsElements(tools),
    element('h2', {}, 'Services of this process'),
    element(
      'ul',
      { class: 'facts' },
      ...health.services.map(({ name, isRunning, failures }) =>
        element(
          'li',
          {},
          element('code', {}, name),
          isRunning ? ' runs' : ' is being restarted',
          failures > 0 && `, failed ${failures} times`,
        ),
      ),
    ),
  ];
}

/** @param {Health} health */
function wellness({ faults, missingRoles }) {
  const all = [...missingRoles.map((role) => `nobody does the work of ${role}`), ...faults];
  if (all.length === 0) return element('p', { class: 'card note', 'data-health': 'ok' }, 'Everything runs.');
  return element(
    'ul',
    { class: 'card note parked', 'data-health': 'fault' },
    ...all.map((fault) => element('li', {}, fault)),
  );
}

/** @param {string[]} cells @param {string} tag */
function row(cells, tag) {
  return element('tr', {}, ...cells.map((cell) => element(tag, {}, cell)));
}

/** @param {StageLag[]} stages */
function stagesTable(stages) {
  return element(
    'table',
    { class: 'lags' },
    element('thead', {}, row(['Stage', 'Waiting', 'Oldest since', 'Tried again'], 'th')),
    element(
      'tbody',
      {},
      ...stages.map(({ stage, inbox, waiting, oldestAt, retried }) => {
        const since = oldestAt === null ? '–' : new Date(oldestAt).toLocaleString();
        return row([inbox === null ? stage : `inbox ${inbox}`, `${waiting}`, since, `${retried}`], 'td');
      }),
    ),
  );
}

/** @param {ToolRevisions} tools */
function toolsElements({ live, pinned, revisions }) {
  const liveWords =
    live === null ? 'No revision is live yet.' : `Live: ${named(live)}, serving ${live.inboxes.join(', ')}.`;
  return [
    element('p', {}, liveWords),
    pinned === null
      ? null
      : element('p', {}, 'Pinned to ', element('code', {}, pinned), ', whatever is pushed.'),
    element(
      'ol',
      { class: 'facts' },
      ...revisions
        .slice(0, SHOWN_REVISIONS)
        .map((record) =>
          element(
            'li',
            { 'data-status': record.status },
            timeElement(record.at),
            ` ${[record.status, named(record)].filter(Boolean).join(': ')}`,
            record.error === null ? null : element('pre', { class: 'log' }, record.error),
          ),
        ),
    ),
  ];
}

/**
 * Empty for what was refused before it was a revision.
 * @param {import('../../streams/records.ts').ToolsRecord} record
 */
function named({ revision, commit }) {
  if (commit) return `${commit.id.slice(0, 10)} ${commit.subject}`;
  return revision === 'none' ? '' : revision;
}
