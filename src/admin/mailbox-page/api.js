/**
 * What the page asks the daemon. The browser brings the cookie, and names the page as the one that asks.
 */

/** @param {string} path @returns {Promise<any>} */
export function getJson(path) {
  return answerOf(fetch(path));
}

/** @param {string} path @param {unknown} body @returns {Promise<any>} */
export function postJson(path, body) {
  const headers = { 'Content-Type': 'application/json' };
  return answerOf(fetch(path, { method: 'POST', headers, body: JSON.stringify(body) }));
}

/** @param {Promise<Response>} asked */
async function answerOf(asked) {
  const response = await asked.catch(() => {
    throw new Error('The daemon does not answer.');
  });
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const { message = `The daemon said ${response.status}`, hint = null } = answer?.error ?? {};
  throw new Error(hint ? `${message}. ${hint}` : message);
}
