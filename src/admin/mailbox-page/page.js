/**
 * The console: loads what the daemon says, listens for changes, and shows what the address's fragment names (`#new`,
 * `#<emailId>`, or a panel), so that the browser's own Back works. With real mail nothing can be written here.
 */
import { composeNew, composeReply, sendAgain, setInboxes, startComposer } from './composer.js';
import { byId, element, timeElement } from './element.js';
import { reasonText } from './flow.js';
import { hidePanel, panelOf, showPanel } from './panel.js';
import { listItem, mailElement } from './thread.js';

/** @typedef {import('../conversation.ts').Conversation} Conversation */
/** @typedef {import('../conversation.ts').LocalMailView} Mail */

const list = byId('list', HTMLElement);
const thread = byId('thread', HTMLElement);
const threadMails = byId('thread-mails', HTMLElement);
const threadSubject = byId('thread-subject', HTMLElement);
const composer = byId('composer', HTMLElement);
const welcome = byId('welcome', HTMLElement);
const composeSection = byId('compose-section', HTMLElement);
const journey = byId('journey', HTMLElement);
const connection = byId('connection', HTMLElement);
const announcer = byId('announcer', HTMLElement);
const newEmail = byId('new-email', HTMLElement);
const inboxFilter = byId('inbox-filter', HTMLSelectElement);
const stateFilter = byId('state-filter', HTMLSelectElement);
const findText = byId('find-text', HTMLInputElement);

/** Whether mail can be written here: the daemon says so in the page. */
const isLocal = document.documentElement.dataset['mail'] === 'local';
/**
 * `shown` is the conversation or view on the page, `awaited` the mail to be shown once it is there.
 * @type {{ conversations: Conversation[], isLoaded: boolean, shown: string | null, awaited: string | null, settled: Set<string> }}
 */
const state = {
  conversations: [],
  isLoaded: false,
  shown: null,
  awaited: null,
  settled: new Set(),
};
/** What an element was made from, so that only what changed is made anew. @type {WeakMap<Element, string>} */
const madeFrom = new WeakMap();

/** One request at a time: what changes meanwhile is asked for right after. */
let isLoading = false;
let isStale = false;

async function load() {
  isStale = true;
  if (isLoading) return;
  isLoading = true;
  try {
    while (isStale) {
      isStale = false;
      const response = await fetch('api/mailbox');
      if (response.status === 401) return setConnection('lost', 'Open the link with the token again');
      if (!response.ok) throw new Error(`status ${response.status}`);
      show(await response.json());
    }
  } catch {
    setConnection('lost', 'Reconnecting');
  } finally {
    isLoading = false;
  }
}

/** @typedef {import('../mailbox-view.ts').ToolsState} ToolsState */

/** @param {{ conversations: Conversation[], inboxes: string[], domains: string[], tools: ToolsState }} mailbox */
function show({ conversations, inboxes, domains, tools }) {
  announce(conversations);
  Object.assign(state, { conversations, isLoaded: true });
  showRefusal(tools);
  showInboxes(inboxes);
  if (isLocal) setInboxes(inboxes, domains[0] ?? '');
  const { awaited } = state;
  if (awaited !== null && conversationOf(awaited)) {
    state.awaited = null;
    history.pushState(null, '', `#${awaited}`);
  }
  render();
}

/** @param {ToolsState} tools */
function showRefusal({ live, refused }) {
  byId('refusal', HTMLElement).hidden = refused === null;
  if (refused === null) return;
  const still = live === null ? 'No tool is live' : `${live.revision} is still live`;
  const words = `The newest revision of the tools was refused. ${still}.`;
  byId('refusal-words', HTMLElement).replaceChildren(words, ' ', timeElement(refused.at));
  byId('refusal-error', HTMLElement).textContent = refused.error;
}

/** What can be chosen: what is served, and what mail has reached. @param {readonly string[]} served */
function showInboxes(served) {
  const reached = state.conversations.flatMap(({ mails }) => mails.flatMap(({ inboxes }) => inboxes));
  const names = [...new Set([...served, ...reached.map(({ inbox }) => inbox)])].toSorted();
  const { value } = inboxFilter;
  if (madeFrom.get(inboxFilter) === names.join()) return;
  madeFrom.set(inboxFilter, names.join());
  const options = names.map((name) => element('option', { value: name }, name));
  inboxFilter.replaceChildren(element('option', { value: '' }, 'All inboxes'), ...options);
  inboxFilter.value = names.includes(value) ? value : '';
}

/** @param {Conversation} conversation */
function isChosen({ mails }) {
  const last = /** @type {Mail} */ (mails.at(-1));
  const standing = ['underway', 'retrying', 'scheduled'].includes(last.state) ? 'waiting' : last.state;
  const isOfInbox = mails.some(({ inboxes }) => inboxes.some(({ inbox }) => inbox === inboxFilter.value));
  return (
    (inboxFilter.value === '' || isOfInbox) && (stateFilter.value === '' || standing === stateFilter.value)
  );
}

/** @param {string} id of any of its mails */
function conversationOf(id) {
  return state.conversations.find(({ mails }) => mails.some(({ emailId }) => emailId === id));
}

/** What the address names, and which of the page's views that is. */
function shownNow() {
  const fragment = location.hash.slice(1);
  const selected = conversationOf(fragment);
  // A mail that is not among the newest any more still has its streams.
  const named = !selected && /^[\da-f]{8}-[\da-f-]{27}$/.test(fragment) ? `trace=${fragment}` : fragment;
  const isHome = !isLocal && !selected && panelOf(named) === null;
  const panel = selected ? null : panelOf(isHome ? 'health' : named);
  const isEmpty = isLocal && state.conversations.length === 0;
  /** @returns {'list' | 'panel' | 'empty' | 'thread' | 'compose'} */
  const viewOf = () => {
    if (isHome) return 'list';
    if (panel) return 'panel';
    if (isEmpty) return 'empty';
    if (selected) return 'thread';
    return fragment === 'new' ? 'compose' : 'list';
  };
  return { fragment: isHome ? 'health' : named, selected, panel, view: viewOf() };
}

function render() {
  if (!state.isLoaded) return;
  const { fragment, selected, panel, view } = shownNow();
  document.body.dataset['view'] = view;
  renderList(selected);
  thread.hidden = view !== 'thread';
  welcome.hidden = view !== 'empty';
  journey.hidden = view !== 'empty';
  composeSection.hidden = panel !== null || (view !== 'compose' && view !== 'list');
  composer.hidden = panel !== null || !isLocal;
  for (const link of document.querySelectorAll('.pages a'))
    link.setAttribute('aria-current', link.getAttribute('href') === location.hash ? 'page' : 'false');
  if (!panel) hidePanel();
  if (selected) renderThread(selected);
  else if (panel) {
    state.shown = null;
    showPanel(fragment, panel);
  } else {
    document.title = 'Millrace: local mailbox';
    if (state.shown !== view) composeNew(view === 'empty');
    state.shown = view;
  }
}

/** @param {Conversation | undefined} selected */
function renderList(selected) {
  const chosen = state.conversations.filter(isChosen);
  const items = chosen.map((conversation) => listItem(conversation, conversation === selected));
  if (items.length === 0) items.push(element('li', { class: 'nothing' }, 'No mail here yet.'));
  const focused = document.activeElement?.closest('.list-item')?.getAttribute('href');
  list.replaceChildren(element('ul', {}, ...items));
  if (!focused) return;
  for (const link of list.querySelectorAll('a')) if (link.getAttribute('href') === focused) link.focus();
}

/** @param {Conversation} conversation */
function renderThread(conversation) {
  const isNew = state.shown !== conversation.id;
  state.shown = conversation.id;
  threadSubject.textContent = conversation.subject || 'No subject';
  document.title = `${conversation.subject || 'No subject'}: Millrace`;
  const old = new Map([...threadMails.children].map((child) => [child.getAttribute('data-email-id'), child]));
  const sections = conversation.mails.map((mail) => {
    const source = JSON.stringify(mail);
    const kept = old.get(mail.emailId);
    if (kept && madeFrom.get(kept) === source) return kept;
    const made = mailElement(mail, () => void sendAgain(mail.emailId).then(showWhenThere, () => {}));
    madeFrom.set(made, source);
    return made;
  });
  const isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
  if (sections.some((section, index) => threadMails.children[index] !== section))
    threadMails.replaceChildren(...sections);
  if (isLocal) composeReply(replyTarget(conversation));
  if (isNew) threadSubject.focus({ preventScroll: true });
  if (isNew ? conversation.mails.length > 1 : isAtEnd)
    scrollTo({ top: document.documentElement.scrollHeight, behavior: isNew ? 'auto' : 'smooth' });
}

/**
 * The next mail of the conversation answers the last reply, or follows the last mail where there is none.
 * @param {Conversation} conversation
 */
function replyTarget({ id, mails }) {
  const last = /** @type {Mail} */ (mails.at(-1));
  const copy = last.inboxes.findLast(({ replies }) => replies.length > 0) ?? last.inboxes[0];
  const reply = copy?.replies.findLast(isAnswer) ?? copy?.replies.at(-1);
  const inReplyTo = reply?.messageId ?? last.messageId;
  const ids = [...last.references, last.messageId, reply?.messageId].filter((one) => typeof one === 'string');
  const subject = /^re:/i.test(last.subject) ? last.subject : `Re: ${last.subject}`;
  return {
    conversation: id,
    to: copy?.address ?? last.to[0] ?? '',
    from: last.fromName ? `${last.fromName.replace(/[<>"]/g, '')} <${last.from}>` : last.from,
    subject,
    inReplyTo: inReplyTo ?? null,
    references: [...new Set(ids)].slice(-20),
  };
}

/** As opposed to what a tool sent to somebody else. @param {{ headers: Readonly<Record<string, string>> }} reply */
function isAnswer({ headers }) {
  return headers['Auto-Submitted'] === 'auto-replied';
}

/** Tells people who do not see the page what has just been settled. @param {Conversation[]} conversations */
function announce(conversations) {
  for (const mail of conversations.flatMap(({ mails }) => mails)) {
    if (!mail.isSettled || state.settled.has(mail.emailId)) continue;
    state.settled.add(mail.emailId);
    if (!state.isLoaded) continue;
    const inbox = mail.inboxes.map((copy) => copy.inbox).join(', ');
    const replies = mail.inboxes.flatMap((copy) => copy.replies);
    const reply = replies.findLast(isAnswer) ?? replies.at(-1);
    const texts = {
      answered: `Reply from ${inbox}: ${reply?.text.slice(0, 200) ?? ''}`,
      parked: `Parked: ${mail.error?.message ?? mail.reason}`,
      'not-answered': `Not answered. ${reasonText(mail.reason)}`,
    };
    announcer.textContent = texts[/** @type {keyof typeof texts} */ (mail.state)] ?? '';
  }
}

/** @param {'connecting' | 'live' | 'lost'} connectionState @param {string} words */
function setConnection(connectionState, words) {
  connection.dataset['state'] = connectionState;
  connection.textContent = words;
}

function listen() {
  const events = new EventSource('api/mailbox/events');
  events.addEventListener('open', () => setConnection('live', 'Live'));
  events.addEventListener('change', () => void load());
  events.addEventListener('error', () => {
    setConnection('lost', 'Reconnecting');
    // A refusal (such as 401) ends the source for good; a lost connection is its own to mend.
    // oxlint-disable-next-line no-restricted-globals -- a browser has no Clock
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

/** @param {string} emailId of a mail that was just sent */
function showWhenThere(emailId) {
  state.awaited = emailId;
  void load();
}

/** Whatever stands there: an id is looked up, anything else is searched for. */
function find() {
  const text = findText.value.trim();
  const isId = /^(?:<\S+>|[\da-f]{8}-[\da-f-]{27})$/i.test(text);
  location.hash = text === '' ? '' : `#${isId ? 'trace' : 'find'}=${encodeURIComponent(text)}`;
}

if (isLocal) {
  byId('place', HTMLElement).textContent = 'local mailbox';
  newEmail.hidden = false;
  startComposer(showWhenThere);
}
byId('find', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault();
  find();
});
for (const filter of [inboxFilter, stateFilter]) filter.addEventListener('change', render);
addEventListener('hashchange', render);
void load();
listen();
