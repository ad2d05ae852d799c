/**
 * The button that puts a dead letter back. The daemon does it once, however often it is pressed.
 */
import { postJson } from './api.js';
import { element } from './element.js';

/** @typedef {import('../conversation.ts').DeadLetterName} DeadLetterName */

/** @type {Record<string, string>} */
const words = {
  redriven: 'Put back: it is on its way again.',
  'already-redriven': 'It was put back before.',
  expired: 'Its record is not kept any more.',
};

/** @param {DeadLetterName} deadLetter */
export function redriveButton({ seqNum, ...which }) {
  const result = element('span', { class: 'muted', role: 'status' });
  const button = element('button', { type: 'button', class: 'button' }, 'Redrive');
  const press = async () => {
    button.setAttribute('disabled', '');
    result.textContent = 'Putting it back.';
    try {
      const body = { ...which, seqNums: { from: seqNum, to: seqNum } };
      result.textContent = await redriven(body);
    } catch (error) {
      button.removeAttribute('disabled');
      result.textContent = error instanceof Error ? error.message : 'That failed.';
    }
  };
  button.addEventListener('click', () => void press());
  return element('div', { class: 'again' }, button, result);
}

/** Page by page, until it is found. @param {object} body */
async function redriven(body) {
  for (let from = 0; from !== null;) {
    const { deadLetters, next } = await postJson('api/admin/redrive', { ...body, from });
    if (deadLetters.length > 0) return words[deadLetters[0].status] ?? '';
    from = next;
  }
  return 'There is no such dead letter.';
}
