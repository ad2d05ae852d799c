/**
 * A conversation as a person reads it: each mail, where it is on its way, and what came back.
 */
import { element, sizeText, timeElement } from './element.js';
import { flowStrip, reasonText, stateWords } from './flow.js';
import { redriveButton } from './redrive.js';
import { traceDetails } from './trace.js';

/** @typedef {import('./flow.js').Mail} Mail */
/** @typedef {import('./flow.js').InboxCopy} InboxCopy */
/** @typedef {import('../conversation.ts').Conversation} Conversation */
/** @typedef {InboxCopy['replies'][number]} Reply */

/** @param {Conversation} conversation @param {boolean} isCurrent */
export function listItem(conversation, isCurrent) {
  const last = /** @type {Mail} */ (conversation.mails.at(-1));
  const replies = last.inboxes.flatMap(({ replies: some }) => some);
  const reply = replies.at(-1);
  const hasBounced = replies.some(
    ({ delivery }) => delivery !== null && deliveryState(delivery) === 'parked',
  );
  const texts = { parked: last.error?.message, 'not-answered': reasonText(last.reason) };
  const told = texts[/** @type {keyof typeof texts} */ (last.state)];
  const preview = told ?? reply?.text ?? last.text ?? '';
  const inboxes = last.to.map(localPart).join(', ');
  return element(
    'li',
    {},
    element(
      'a',
      { href: `#${conversation.id}`, 'aria-current': isCurrent ? 'true' : null, class: 'list-item' },
      element(
        'span',
        { class: 'list-line' },
        element('b', {}, last.isLocal ? inboxes : `${last.fromName || last.from} → ${inboxes}`),
        timeElement(conversation.latestAt),
      ),
      element('span', { class: 'list-subject' }, conversation.subject || 'No subject'),
      element(
        'span',
        { class: 'list-line' },
        element('span', { class: 'list-preview' }, preview.slice(0, 120)),
        hasBounced
          ? element('span', { class: 'pill', 'data-state': 'parked' }, 'Not delivered')
          : element('span', { class: 'pill', 'data-state': last.state }, stateWords[last.state]),
      ),
    ),
  );
}

/**
 * One mail of a conversation with what came of it.
 * @param {Mail} mail
 * @param {() => void} onAgain the person wants it sent once more
 */
export function mailElement(mail, onAgain) {
  const hasNoAnswer = mail.state === 'parked' || mail.state === 'not-answered';
  return element(
    'section',
    { class: 'mail', 'data-state': mail.state, 'data-email-id': mail.emailId },
    sentCard(mail),
    ...(mail.inboxes.length > 0
      ? mail.inboxes.flatMap((copy) => copyElements(mail, copy))
      : [flowStrip(mail, null), outcomeNote(mail, null)]),
    traceDetails(mail.emailId),
    hasNoAnswer &&
      mail.isLocal &&
      element(
        'div',
        { class: 'again' },
        element('button', { type: 'button', class: 'button', onclick: onAgain }, 'Send again'),
      ),
  );
}

/** @param {Mail} mail */
function sentCard(mail) {
  return element(
    'div',
    { class: 'card letter' },
    letterHead({ from: mail.from, name: mail.fromName, to: mail.to.join(', '), at: mail.sentAt }),
    mail.text === null
      ? element('p', { class: 'muted' }, mail.isSettled ? 'It was not fetched.' : 'Being fetched and parsed.')
      : element(
          'div',
          { class: 'letter-text' },
          mail.text || element('span', { class: 'muted' }, 'This email has no text.'),
        ),
    mail.isTextCut && cutNote(`mail/${mail.emailId}`),
    mail.attachments.length > 0 &&
      element(
        'ul',
        { class: 'files' },
        ...mail.attachments.map((file) => element('li', { class: 'file' }, fileLabel(file))),
      ),
  );
}

/** @param {Mail} mail @param {InboxCopy} copy */
function copyElements(mail, copy) {
  return [
    flowStrip(mail, copy),
    ...copy.replies.map((reply) => replyCard(reply, copy)),
    outcomeNote(copy, copy),
    copy.logs.length > 0 ? logDetails(copy) : null,
  ];
}

/** @param {Reply} reply @param {InboxCopy} copy */
function replyCard(reply, copy) {
  const card = element(
    'div',
    { class: 'card letter reply' },
    letterHead({ from: reply.from, name: copy.inbox, to: reply.to, at: reply.at }),
    element('p', { class: 'letter-subject' }, reply.subject),
    reply.delivery !== null && deliveryNote(reply.delivery),
  );
  const text = element('div', { class: 'letter-text' }, reply.text);
  card.append(reply.hasHtml ? htmlOrText(reply, text) : text);
  if (reply.isTextCut)
    card.append(cutNote(`${reply.messageId === null ? 'outbox' : 'mailbox'} #${reply.id}`));
  if (reply.attachments.length > 0) {
    const links = reply.attachments.map((file) =>
      element(
        'li',
        {},
        element(
          'a',
          {
            class: 'file',
            href: `api/mailbox/replies/${reply.id}/attachments/${file.index}`,
            download: file.filename,
          },
          fileLabel(file),
        ),
      ),
    );
    card.append(element('ul', { class: 'files', 'aria-label': 'Attached files' }, ...links));
  }
  card.append(headerDetails(reply));
  return card;
}

/** As states of a mail are shown: well, not yet, or something for a person to look at. @param {string} delivery */
function deliveryState(delivery) {
  return { delivered: 'answered', delivery_delayed: 'retrying' }[delivery] ?? 'parked';
}

/** What the provider said. @param {string} delivery */
function deliveryNote(delivery) {
  const state = deliveryState(delivery);
  return element('p', { class: 'pill', 'data-state': state }, delivery.replaceAll('_', ' '));
}

/** @param {{ from: string, name: string, to: string, at: string }} head */
function letterHead({ from, name, to, at }) {
  return element(
    'header',
    { class: 'letter-head' },
    element(
      'span',
      { class: 'letter-from' },
      name ? element('b', {}, name) : null,
      element('span', { class: 'address' }, from),
    ),
    element('span', { class: 'letter-to' }, 'to ', element('span', { class: 'address' }, to)),
    timeElement(at),
  );
}

/**
 * A reply in HTML is shown in a frame that may do nothing at all; its text stays one click away.
 * @param {Reply} reply
 * @param {HTMLElement} text
 */
function htmlOrText(reply, text) {
  const frame = /** @type {HTMLIFrameElement} */ (
    element('iframe', {
      class: 'letter-html',
      sandbox: '',
      title: 'The reply as HTML',
      loading: 'lazy',
      referrerpolicy: 'no-referrer',
    })
  );
  void loadHtml(reply, frame);
  const details = element('details', { class: 'details' }, element('summary', {}, 'Plain text'), text);
  return element('div', {}, frame, details);
}

const FRAME_HEAD =
  '<!doctype html><meta charset="utf-8">' +
  `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">` +
  '<meta name="color-scheme" content="light"><style>body{font:15px/1.55 system-ui,sans-serif;margin:12px;background:#fff;color:#1c2524}</style>';

/** @param {Reply} reply @param {HTMLIFrameElement} frame */
async function loadHtml(reply, frame) {
  const response = await fetch(`api/mailbox/replies/${reply.id}`);
  const { html } = response.ok ? await response.json() : { html: '<p>The HTML could not be loaded.</p>' };
  frame.srcdoc = FRAME_HEAD + html;
}

/**
 * What a settled or waiting copy has to say besides its replies; nothing for one that is on its way.
 * @param {import('../conversation.ts').Standing} standing
 * @param {InboxCopy | null} copy
 */
function outcomeNote(standing, copy) {
  if (standing.state === 'parked') return parkedNote(standing, copy);
  if (standing.state === 'not-answered') {
    return note(
      '',
      element('p', { class: 'note-title' }, 'Deliberately not answered'),
      element('p', {}, reasonText(standing.reason)),
      element('p', { class: 'muted' }, element('code', {}, standing.reason ?? '')),
    );
  }
  const until = standing.until ? new Date(standing.until).toLocaleTimeString() : 'soon';
  if (standing.state === 'scheduled')
    return note('waiting', element('p', {}, `The reply leaves at ${until}.`));
  if (standing.state !== 'retrying') return null;
  return note(
    'waiting',
    element('p', {}, `Next attempt at ${until}: `, element('code', {}, standing.reason ?? '')),
  );
}

/** @param {import('../conversation.ts').Standing} standing @param {InboxCopy | null} copy */
function parkedNote({ stage, reason, error, deadLetter }, copy) {
  const title = stage === 'runner' && copy ? `Parked: ${copy.inbox} failed` : `Parked at ${stage}`;
  return note(
    'parked',
    element('p', { class: 'note-title' }, title),
    element('pre', { class: 'error-text' }, error?.message ?? reason ?? ''),
    element(
      'p',
      { class: 'muted' },
      element('code', {}, error?.code ?? reason ?? ''),
      error?.hint ? ` ${error.hint}` : '',
    ),
    element('p', {}, 'It waits here alone: no other email is held up by it.'),
    ...(deadLetter ? [redriveButton(deadLetter)] : []),
  );
}

/** @param {string} kind @param {...HTMLElement} children */
function note(kind, ...children) {
  return element('div', { class: `card note ${kind}`, role: 'note' }, ...children);
}

/** @param {InboxCopy} copy */
function logDetails(copy) {
  return element(
    'details',
    { class: 'details', open: copy.state === 'parked' },
    element('summary', {}, `What ${copy.inbox} logged`),
    element('pre', { class: 'log' }, copy.logs.join('\n')),
  );
}

/** @param {Reply} reply */
function headerDetails(reply) {
  const rows = Object.entries(reply.headers).flatMap(([name, value]) => [
    element('dt', {}, name),
    element('dd', {}, value),
  ]);
  return element(
    'details',
    { class: 'details' },
    element('summary', {}, 'Headers'),
    element('dl', { class: 'headers' }, ...rows),
  );
}

/** @param {string} place */
function cutNote(place) {
  return element(
    'p',
    { class: 'muted' },
    'The text is longer. All of it stands on ',
    element('code', {}, place),
    '.',
  );
}

/** @param {{ filename: string, size: number }} file */
function fileLabel({ filename, size }) {
  return `${filename} (${sizeText(size)})`;
}

/** @param {string} address */
function localPart(address) {
  return address.slice(0, address.lastIndexOf('@')) || address;
}
