/**
 * The whole life of an email, record by record, as `millrace trace` shows it.
 */
import { getJson } from './api.js';
import { element } from './element.js';

/** @typedef {import('../trace.ts').TraceStep & { headline: string, details: string[] }} Step */
/** @typedef {{ emailId: string, steps: Step[], partlyRead: { stream: string }[] }} Trace */

const MAX_SHOWN_STEPS = 500;
/** Of the provider. @type {readonly unknown[]} */
const BAD_EVENTS = ['bounced', 'complained', 'failed', 'suppressed'];

/** @param {string} id of an email, or a Message-ID */
export async function traceElements(id) {
  /** @type {{ emails: Trace[] }} */
  const { emails } = await getJson(`api/admin/trace?id=${encodeURIComponent(id)}`);
  return emails.flatMap(({ emailId, steps, partlyRead }) => [
    element('p', { class: 'muted' }, 'email ', element('code', {}, emailId), ', times in UTC'),
    element('ol', { class: 'trace' }, ...steps.slice(0, MAX_SHOWN_STEPS).map(stepElement)),
    steps.length > MAX_SHOWN_STEPS ? element('p', {}, 'There is more: millrace trace shows it.') : null,
    ...partlyRead.map(({ stream }) => element('p', {}, `Only a part of ${stream} was looked at.`)),
  ]);
}

/** @param {Step} step */
function stepElement({ at, stream, seqNum, step, headline, details, facts }) {
  const time = new Date(at);
  const isBad = facts['outcome'] === 'dead-letter' || BAD_EVENTS.includes(facts['event']);
  return element(
    'li',
    { 'data-step': step, 'data-state': isBad ? 'bad' : null },
    element(
      'time',
      { datetime: at, title: time.toLocaleString() },
      time.toISOString().slice(5, 23).replace('T', ' '),
    ),
    element('code', { class: 'trace-place' }, `${stream}#${seqNum}`),
    element('span', { class: 'trace-headline' }, headline),
    details.length > 0 && element('pre', { class: 'trace-details' }, details.join('\n')),
  );
}

/** Which are open: a mail that changes is made anew. @type {Set<string>} */
const opened = new Set();

/** Loaded when it is opened. @param {string} emailId */
export function traceDetails(emailId) {
  const content = element('div', {});
  const details = /** @type {HTMLDetailsElement} */ (
    element(
      'details',
      { class: 'details', open: opened.has(emailId) },
      element('summary', {}, 'The whole life of this email'),
      content,
    )
  );
  const load = async () => {
    try {
      content.replaceChildren(...(await traceElements(emailId)).filter((child) => child !== null));
    } catch (error) {
      content.replaceChildren(element('p', {}, error instanceof Error ? error.message : 'That failed.'));
    }
  };
  details.addEventListener('toggle', () => {
    if (details.open) {
      opened.add(emailId);
      void load();
    } else opened.delete(emailId);
  });
  return details;
}
