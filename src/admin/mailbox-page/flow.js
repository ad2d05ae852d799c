/**
 * Where a mail is on its way, as a strip of steps, and what its state means in words.
 */
import { element } from './element.js';

/** @typedef {import('../conversation.ts').LocalMailView} Mail */
/** @typedef {import('../conversation.ts').InboxCopy} InboxCopy */
/** @typedef {import('../conversation.ts').Standing} Standing */
/** @typedef {'done' | 'now' | 'failed' | 'declined' | 'ahead' | 'unused'} StepState */
/** @typedef {{ name: string, note: string, state: StepState }} Step */

/** @type {Record<Standing['state'], string>} */
export const stateWords = {
  underway: 'On its way',
  retrying: 'Trying again',
  scheduled: 'Scheduled',
  answered: 'Answered',
  'not-answered': 'Not answered',
  parked: 'Parked',
};

/** Why there is no reply, for people. The words are those of the records. @type {Record<string, string>} */
const reasonTexts = {
  'no-tool':
    'No function serves this address. The email is kept in inbox/unrouted, where a later tool can find it.',
  'no-reply-from-tool': 'The function ran and returned nothing to send.',
  'no-recipient': 'There is no address that a reply could go to.',
  'own-address': 'It came from an address of this daemon itself: answering could start a loop.',
  'own-marker': 'It is a reply that Millrace itself wrote: answering could start a loop.',
  'auto-submitted': 'It says that a machine sent it, and nothing here answers machines.',
  'auto-response-suppress': 'Its sender asks for no automatic replies.',
  'mailing-list': 'It came over a mailing list, which gets no automatic replies.',
  'bulk-precedence': 'It is marked as bulk mail, which gets no automatic replies.',
  'delivery-report': 'It is a report about another email, which gets no reply.',
  'null-return-path': 'Its envelope names nobody to answer.',
  'system-sender': 'Its sender is a mail system, or an address that nobody reads.',
  'several-authors': 'It names several authors, so it is not clear who should get the reply.',
  'no-sender': 'It does not say who wrote it.',
  'sender-cap': 'This sender has had as many automatic replies as one gets in a day.',
  'thread-cap': 'This conversation has had as many automatic replies as it gets in a day.',
  suppressed: 'The address has bounced for good or complained before, so nothing is sent there.',
  'sender-not-allowed': 'Its sender may not write to this tool.',
  'sender-unauthenticated': 'It does not prove who wrote it, which this tool asks for.',
  'foreign-domain': 'None of its addresses belongs to this daemon.',
};

/** @param {string | null} reason */
export function reasonText(reason) {
  return reasonTexts[reason ?? ''] ?? `The record says: ${reason ?? 'no reason'}.`;
}

/** @type {Record<StepState, string>} */
const stepWords = {
  done: 'done',
  now: 'now here',
  failed: 'failed',
  declined: 'stopped here',
  ahead: 'not yet',
  unused: 'not needed',
};

/**
 * The strip for a mail in one inbox, or (without a copy) for one that no inbox has yet.
 * @param {Mail} mail
 * @param {InboxCopy | null} copy
 */
export function flowStrip(mail, copy) {
  const steps = stepsOf(mail, copy);
  return element(
    'ol',
    { class: 'flow', 'aria-label': copy ? `The way through ${copy.inbox}` : 'The way so far' },
    ...steps.map(({ name, note, state }) =>
      element(
        'li',
        { 'data-state': state },
        element('span', { class: 'flow-dot', 'aria-hidden': 'true' }),
        element('span', { class: 'flow-name' }, ...flowName(name)),
        element('span', { class: 'visually-hidden' }, `: ${stepWords[state]}. `),
        element('span', { class: 'flow-note' }, note),
      ),
    ),
  );
}

/**
 * @param {Mail} mail
 * @param {InboxCopy | null} copy
 * @returns {Step[]}
 */
function stepsOf(mail, copy) {
  const standing = copy ?? mail;
  const positions = { receive: 2, runner: 3, outbox: 4 };
  const at = copy?.inbox === 'unrouted' ? 3 : positions[standing.stage];
  /** @param {number} step @returns {StepState} */
  const stateOf = (step) => {
    if (standing.state === 'answered' || step < at) return 'done';
    if (step > at)
      return standing.state === 'parked' || standing.state === 'not-answered' ? 'unused' : 'ahead';
    return standing.state === 'parked' ? 'failed' : standing.state === 'not-answered' ? 'declined' : 'now';
  };
  const toolNote = copy?.toolMs === undefined || copy.toolMs === null ? '' : milliseconds(copy.toolMs);
  const names = ['webhook', 'events', copy ? `inbox/${copy.inbox}` : 'inbox', 'tool', 'outbox', 'reply'];
  const notes = [
    mail.isLocal ? 'local' : '',
    `#${mail.seqNum}`,
    copy ? `#${copy.seqNum}` : '',
    toolNote,
    numbers(copy?.outboxSeqNums ?? []),
    mail.isLocal ? numbers(copy?.replies.map(({ id }) => id) ?? []) : deliveries(copy?.replies ?? []),
  ];
  return names.map((name, step) => ({ name, note: notes[step] ?? '', state: stateOf(step) }));
}

/** A narrow page has no room for more than the first word. @param {string} name */
function flowName(name) {
  const [first = '', ...rest] = name.split('/');
  return rest.length === 0 ? [first] : [first, element('span', { class: 'flow-rest' }, `/${rest.join('/')}`)];
}

/** As records are named: `#3`. @param {readonly number[]} seqNums */
function numbers(seqNums) {
  return seqNums.map((seqNum) => `#${seqNum}`).join(' ');
}

/** What the provider said of them. @param {InboxCopy['replies']} replies */
function deliveries(replies) {
  return replies.map(({ delivery }) => (delivery ?? '').replaceAll('_', ' ')).join(' ');
}

/** @param {number} ms */
function milliseconds(ms) {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
