/**
 * The page of the local mailbox: loads what the daemon says, listens for changes, and shows the conversation
 * that the address's fragment names (`#new`, `#<emailId>`), so that the browser's own Back works.
 */
import { composeNew, composeReply, sendAgain, setInboxes, startComposer } from './composer.js';
import { byId, element } from './element.js';
import { reasonText } from './flow.js';
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

/**
 * `shown` is the conversation or view on the page, `awaited` the mail to be shown once it is there.
 * @type {{ conversations: Conversation[], isLoaded: boolean, shown: string | null, awaited: string | null, settled: Set<string> }}
 */
const state = { conversations: [], isLoaded: false, shown: null, awaited: null, settled: new Set() };
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

/** @param {{ conversations: Conversation[], inboxes: string[], domains: string[] }} mailbox */
function show({ conversations, inboxes, domains }) {
  announce(conversations);
  Object.assign(state, { conversations, isLoaded: true });
  setInboxes(inboxes, domains[0] ?? '');
  const { awaited } = state;
  if (awaited !== null && conversationOf(awaited)) {
    state.awaited = null;
    history.pushState(null, '', `#${awaited}`);
  }
  render();
}

/** @param {string} id of any of its mails */
function conversationOf(id) {
  return state.conversations.find(({ mails }) => mails.some(({ emailId }) => emailId === id));
}

function render() {
  if (!state.isLoaded) return;
  const fragment = location.hash.slice(1);
  const selected = conversationOf(fragment);
  const isEmpty = state.conversations.length === 0;
  const view = isEmpty ? 'empty' : selected ? 'thread' : fragment === 'new' ? 'compose' : 'list';
  document.body.dataset['view'] = view;
  renderList(selected);
  thread.hidden = view !== 'thread';
  welcome.hidden = view !== 'empty';
  journey.hidden = view !== 'empty';
  composeSection.hidden = view !== 'compose' && view !== 'list';
  composer.hidden = false;
  if (selected) renderThread(selected);
  else {
    document.title = 'Millrace: local mailbox';
    if (state.shown !== view) composeNew(isEmpty);
    state.shown = view;
  }
}

/** @param {Conversation | undefined} selected */
function renderList(selected) {
  const items = state.conversations.map((conversation) => listItem(conversation, conversation === selected));
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
  composeReply(replyTarget(conversation));
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

startComposer(showWhenThere);
addEventListener('hashchange', render);
void load();
listen();
