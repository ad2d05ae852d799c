/**
 * The form: a new email, or the next one of a conversation; attachments; and raw `.eml` files, chosen or
 * dropped anywhere on the page.
 */
import { byId, element, sizeText } from './element.js';

const MAX_FILE_BYTES = 28_000_000;
const SENDER_KEY = 'millrace.sender';
const DEFAULT_SENDER = 'You <you@laptop.example>';

const form = byId('composer', HTMLFormElement);
const to = byId('to', HTMLInputElement);
const from = byId('from', HTMLInputElement);
const subject = byId('subject', HTMLInputElement);
const text = byId('text', HTMLTextAreaElement);
const formError = byId('form-error', HTMLElement);
const send = byId('send', HTMLButtonElement);
const attach = byId('attach', HTMLInputElement);
const fileList = byId('files', HTMLElement);
const chips = byId('inbox-chips', HTMLElement);

/** Texts that are not sent yet, by conversation. @type {Map<string, string>} */
const drafts = new Map();
/** The name of the draft that belongs to no conversation. */
const NEW_EMAIL = 'new';

/** @typedef {{ conversation: string, to: string, from: string, subject: string, inReplyTo: string | null, references: string[] }} ReplyTarget */

/** @type {{ inboxes: string[], domain: string, reply: ReplyTarget | null, draft: string, files: File[], onSent: (emailId: string) => void }} */
const state = { inboxes: [], domain: '', reply: null, draft: NEW_EMAIL, files: [], onSent: () => {} };

/** @param {(emailId: string) => void} onSent */
export function startComposer(onSent) {
  state.onSent = onSent;
  from.value = localStorage.getItem(SENDER_KEY) ?? DEFAULT_SENDER;
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void submit();
  });
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  to.addEventListener('input', markChip);
  attach.addEventListener('change', () => addFiles(attach));
  const eml = byId('eml', HTMLInputElement);
  eml.addEventListener('change', () => {
    const files = [...(eml.files ?? [])];
    eml.value = '';
    void sendEmlFiles(files);
  });
  startDrop();
}

/** @param {readonly string[]} inboxes @param {string} domain */
export function setInboxes(inboxes, domain) {
  const named = inboxes.filter((name) => name !== 'default');
  if (named.join() === state.inboxes.join() && domain === state.domain) return;
  Object.assign(state, { inboxes: named, domain });
  const made = named.map((name) =>
    chip(name, () => ((to.value = addressOf(name)), markChip(), text.focus())),
  );
  chips.replaceChildren(...made);
  if (named.length === 0) {
    chips.append(
      element(
        'p',
        { class: 'muted' },
        'No tool is live yet. Export a function from tools/index.ts, and its name appears here.',
      ),
    );
  }
  if (to.value === '' && document.activeElement !== to) fillRecipient();
  markChip();
}

/**
 * The form for a new email.
 * @param {boolean} isFirst there is no conversation yet: a newcomer finds one that is ready to be sent
 */
export function composeNew(isFirst) {
  switchDraft(NEW_EMAIL);
  state.reply = null;
  if (to.value === '') fillRecipient();
  if (isFirst && subject.value === '' && text.value === '') {
    [subject.value, text.value] = ['Hello', 'Hello world'];
  }
  setMode('new');
  markChip();
}

/** The first example, or whoever is there. */
function fillRecipient() {
  const first = state.inboxes.includes('reverser') ? 'reverser' : state.inboxes[0];
  to.value = first === undefined ? '' : addressOf(first);
}

/** @param {ReplyTarget} target */
export function composeReply(target) {
  switchDraft(target.conversation);
  state.reply = target;
  setMode('reply');
}

/** What is half written stays with its conversation. @param {string} draft */
function switchDraft(draft) {
  if (state.draft === draft) return;
  drafts.set(state.draft, text.value);
  state.draft = draft;
  text.value = drafts.get(draft) ?? '';
  setFiles([]);
  showError(null);
}

/** @param {'new' | 'reply'} mode */
function setMode(mode) {
  form.dataset['mode'] = mode;
  text.placeholder = mode === 'reply' ? 'Write a reply' : 'Write something';
  send.textContent = mode === 'reply' ? 'Reply' : 'Send';
  for (const id of ['to-field', 'from-field', 'subject-field', 'eml-button'])
    byId(id, HTMLElement).hidden = mode === 'reply';
}

async function submit() {
  showError(null);
  send.disabled = true;
  try {
    const { reply } = state;
    const fields = reply
      ? {
          to: reply.to,
          from: reply.from,
          subject: reply.subject,
          inReplyTo: reply.inReplyTo,
          references: reply.references,
        }
      : { to: to.value.trim(), from: from.value.trim(), subject: subject.value };
    const body = {
      ...fields,
      text: text.value,
      attachments: await Promise.all(state.files.map(attachmentOf)),
    };
    const emailId = await post(
      'api/mailbox',
      'application/json',
      JSON.stringify(body, (_, value) => value ?? undefined),
    );
    if (!reply) localStorage.setItem(SENDER_KEY, from.value.trim());
    text.value = '';
    if (!reply) subject.value = '';
    setFiles([]);
    state.onSent(emailId);
  } catch (error) {
    showError(error);
  } finally {
    send.disabled = false;
  }
}

class RequestError extends Error {
  /** @param {{ code: string, message: string, hint: string | null }} error */
  constructor(error) {
    super(error.hint ? `${error.message}. ${error.hint}` : error.message);
    this.code = error.code;
  }
}

/** @param {string} url @param {string} contentType @param {BodyInit} body @returns {Promise<string>} the emailId */
async function post(url, contentType, body) {
  const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': contentType }, body }).catch(
    () => {
      throw new RequestError({
        code: 'network',
        message: 'The daemon does not answer',
        hint: 'Is it still running in its terminal?',
      });
    },
  );
  const answer = await response
    .json()
    .catch(() => ({ error: { code: 'http', message: `The daemon said ${response.status}`, hint: null } }));
  if (!response.ok) throw new RequestError(answer.error);
  return answer.emailId;
}

/**
 * The same message once more, as if it came from outside again.
 * @param {string} emailId
 */
export async function sendAgain(emailId) {
  showError(null);
  try {
    return await post(`api/mailbox/mails/${emailId}/again`, 'application/json', '{}');
  } catch (error) {
    showError(error);
    throw error;
  }
}

/** @param {unknown} error null clears it */
function showError(error) {
  formError.hidden = error === null;
  formError.textContent = error instanceof Error ? error.message : '';
}

/** @param {HTMLInputElement} input */
function addFiles(input) {
  const files = [...state.files, ...(input.files ?? [])];
  input.value = '';
  if (files.reduce((sum, file) => sum + file.size, 0) > MAX_FILE_BYTES) {
    showError(new Error(`All attachments together may have ${sizeText(MAX_FILE_BYTES)}.`));
    return;
  }
  setFiles(files);
}

/** @param {File[]} files */
function setFiles(files) {
  state.files = files;
  fileList.replaceChildren(
    ...files.map((file) => {
      const remove = () => setFiles(state.files.filter((other) => other !== file));
      const label = `${file.name} (${sizeText(file.size)})`;
      return element(
        'li',
        { class: 'file' },
        label,
        element(
          'button',
          { type: 'button', class: 'remove', 'aria-label': `Remove ${file.name}`, onclick: remove },
          '×',
        ),
      );
    }),
  );
}

/** @param {File} file */
async function attachmentOf(file) {
  const reader = new FileReader();
  reader.readAsDataURL(file);
  await new Promise((resolve) => reader.addEventListener('loadend', resolve, { once: true }));
  if (typeof reader.result !== 'string') throw new Error(`${file.name} cannot be read`);
  const url = reader.result;
  return {
    filename: file.name,
    contentBase64: url.slice(url.indexOf(',') + 1),
    contentType: file.type || undefined,
  };
}

/** @param {File[]} files */
async function sendEmlFiles(files) {
  showError(null);
  for (const file of files) {
    try {
      state.onSent(await sendEml(file));
    } catch (error) {
      showError(error);
    }
  }
}

/** @param {File} file */
async function sendEml(file) {
  try {
    return await post('api/mailbox/eml', 'message/rfc822', file);
  } catch (error) {
    if (!(error instanceof RequestError) || error.code !== 'local_mail.no_recipient') throw error;
    const inbox = await chooseInbox();
    if (inbox === '') throw error;
    return post(`api/mailbox/eml?to=${encodeURIComponent(addressOf(inbox))}`, 'message/rfc822', file);
  }
}

/** @returns {Promise<string>} empty when the person thought better of it */
function chooseInbox() {
  const dialog = byId('choose-inbox', HTMLDialogElement);
  byId('choose-chips', HTMLElement).replaceChildren(
    ...state.inboxes.map((name) => chip(name, () => dialog.close(name))),
  );
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener('close', () => resolve(dialog.returnValue), { once: true }),
  );
}

/** @param {DragEvent} event */
function holdsFiles(event) {
  return event.dataTransfer?.types.includes('Files') ?? false;
}

function startDrop() {
  const target = byId('drop-target', HTMLElement);
  let depth = 0;
  /** @param {number} change */
  const setDepth = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    target.hidden = depth === 0;
  };
  document.addEventListener('dragenter', (event) => holdsFiles(event) && setDepth(1));
  document.addEventListener('dragleave', (event) => holdsFiles(event) && setDepth(-1));
  document.addEventListener('dragover', (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener('drop', (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    setDepth(0);
    void sendEmlFiles([...(event.dataTransfer?.files ?? [])]);
  });
}

/** @param {string} name @param {() => void} onclick */
function chip(name, onclick) {
  return element('button', { type: 'button', class: 'chip', 'data-inbox': name, onclick }, name);
}

function markChip() {
  for (const button of chips.querySelectorAll('button'))
    button.setAttribute('aria-pressed', String(to.value.trim() === addressOf(button.dataset['inbox'] ?? '')));
}

/** @param {string} inbox */
function addressOf(inbox) {
  return `${inbox}@${state.domain}`;
}
