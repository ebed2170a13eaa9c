// Requests to the controller. The token comes from the page's address, and is removed from it.

const KEY = "boincvm-token";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

export class RequestError extends Error {
  constructor(message, hint, status) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function hasToken() {
  return token() !== "";
}

function token() {
  return sessionStorage.getItem(KEY) || "";
}

function headers(more) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : { ...more };
}

async function request(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers) });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const error = body.error || {};
  throw new RequestError(error.message || `the controller answered ${answer.status}`, error.hint || "", answer.status);
}

function post(path, parameters) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(parameters) });
}

export async function call(operation, parameters = {}) {
  return (await (await post(`/api/${operation}`, parameters)).json()).result;
}

// Sends a request as `call` does, and calls `onLine` with the object in each line of the answer.
export async function follow(path, parameters, onLine) {
  const reader = (await post(path, parameters)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) onLine(JSON.parse(line));
  }
}

export async function putFile(vms, path, file) {
  const query = new URLSearchParams({ vms, path, kind: "file", mode: "644", modified: `${file.lastModified}000000` });
  return (await (await request(`/api/files?${query}`, { method: "PUT", body: file })).json()).result;
}

export async function getFile(vm, path) {
  const answer = await request(`/api/files?${new URLSearchParams({ vm, path })}`);
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

export function screenAddress(vm) {
  return { url: socketAddress(`/api/console/${encodeURIComponent(vm)}`), wsProtocols: protocols("binary") };
}
