// What the page asks of the controller. The token comes from the address, and is taken out of it.

const KEY = "boincvm-token";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

export class Refused extends Error {
  constructor(message, hint, status) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

function token() {
  return sessionStorage.getItem(KEY) || "";
}

function headers(more) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : { ...more };
}

async function fetched(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers) });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const error = told.error || {};
  throw new Refused(error.message || `the controller says ${answer.status}`, error.hint || "", answer.status);
}

function posted(path, given) {
  const headers = { "Content-Type": "application/json" };
  return fetched(path, { method: "POST", headers, body: JSON.stringify(given) });
}

export async function call(operation, given = {}) {
  return (await (await posted(`/api/${operation}`, given)).json()).result;
}

// Asks as `call` does, and calls `take` with each line's object of the answer.
export async function follow(path, given, take) {
  const reader = (await posted(path, given)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) take(JSON.parse(line));
  }
}

export async function putFile(vms, path, file) {
  const query = new URLSearchParams({ vms, path, kind: "file", mode: "644", modified: `${file.lastModified}000000` });
  return (await (await fetched(`/api/files?${query}`, { method: "PUT", body: file })).json()).result;
}

export async function getFile(vm, path) {
  const answer = await fetched(`/api/files?${new URLSearchParams({ vm, path })}`);
  return { blob: await answer.blob(), isTree: answer.headers.get("x-boincvm-kind") === "tree" };
}

function socketAddress(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

function protocols(name) {
  return token() ? [name, `boincvm.token.${token()}`] : [name];
}

export function eventSocket(after) {
  return new WebSocket(socketAddress(`/api/events?after=${after}`), protocols("boincvm.events"));
}

export function screenPlace(vm) {
  return { url: socketAddress(`/api/console/${encodeURIComponent(vm)}`), wsProtocols: protocols("binary") };
}
