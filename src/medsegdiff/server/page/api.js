// Asks the server that this page came from, and nobody else.

const root = new URL("api/v1/", document.baseURI);
let token = sessionOf("token");

function sessionOf(name) {
  try { return sessionStorage.getItem(name) ?? ""; } catch { return ""; }
}

/** Keep the token of a user, until the tab is closed. */
export function useToken(given) {
  token = given;
  try { sessionStorage.setItem("token", given); } catch { /* it is asked for again */ }
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask; an answer that is no success becomes an error in the server's words. */
export async function ask(address, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(new URL(address, root), { ...options, headers });
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* as it is */ }
  throw new Refused(answer.status, message || `${answer.status} ${answer.statusText}`);
}

export const json = async (address, options) => (await ask(address, options)).json();
export const bytes = async (address, options) => (await ask(address, options)).arrayBuffer();

/** Save what is at an address as a file. A link would carry no token. */
export async function save(address, name) {
  const blob = await (await ask(address)).blob();
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
