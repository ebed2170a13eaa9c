// The page: a live list of machines, commands in those that are listed, and events.

import { call, eventSocket, follow, hasToken, RequestError, setToken } from "./api.js";
import * as machine from "./machine.js";
import { element, size, split } from "./text.js";

const byId = (id) => document.getElementById(id);
const MOST_EVENTS = 300;
const MOST_OUTPUT = 200000;
let vms = new Map();
let lastEvent = 0;
let running = null;
let retryDelay = 500;
let refreshing = null;
let listening = false;
let isPressed = false;
let isStale = false;

function showError(error) {
  if (error instanceof RequestError && error.status === 401) {
    byId("ask-token").hidden = false;
    byId("token").focus();
    if (!hasToken()) error = null; // a first visit is no error
  }
  byId("trouble").hidden = !error;
  byId("trouble").textContent = error ? [error.message, error.hint].filter(Boolean).join("\n") : "";
}

async function attempt(work) {
  try {
    await work();
    showError(null);
  } catch (error) {
    showError(error);
  }
}

function selector() {
  return byId("filter").value.trim() || "all";
}

async function refresh() {
  const list = await call("list", { vms: selector() });
  vms = new Map(list.vms.map((vm) => [vm.id, vm]));
  draw();
}

// Many events at once cause only one refresh of the list.
function refreshSoon() {
  refreshing ??= setTimeout(() => { refreshing = null; attempt(refresh); }, 50);
}

function draw() {
  isStale = isPressed;
  if (isPressed) return;
  byId("rows").replaceChildren(...[...vms.values()].map(row));
  byId("none").hidden = vms.size > 0;
  const chosen = machine.chosen();
  byId("run-where").textContent = chosen || (vms.size === 1 ? [...vms.keys()][0] : `all ${vms.size} that are shown`);
  if (chosen && vms.has(chosen)) machine.show(vms.get(chosen));
  else if (chosen) { machine.close(); draw(); }
}

// A press on a button that is replaced before the release would be no click: drawing waits until then.
addEventListener("pointerdown", (event) => { isPressed = event.isPrimary && event.button === 0; }, true);
for (const kind of ["pointerup", "pointercancel", "contextmenu", "blur"]) addEventListener(kind, () => setTimeout(release), true);

// The click comes right after the release, so before this.
function release() {
  isPressed = false;
  if (isStale) draw();
}

function row(vm) {
  const line = element("tr", "", vm.id === machine.chosen() ? "chosen" : "");
  line.dataset.vm = vm.id;
  const name = element("td");
  const open = element("button", vm.name, "name");
  open.type = "button";
  open.addEventListener("click", () => attempt(async () => { const opened = machine.open(vm); draw(); await opened; }));
  const labels = Object.entries(vm.labels).map(([key, value]) => `${key}=${value}`).join("  ");
  name.append(open, element("div", labels, "labels"));
  const state = element("td");
  state.append(element("span", vm.state_label, `state ${vm.state}`));
  const progress = element("td");
  if (vm.progress !== null) {
    const bar = element("progress");
    bar.value = vm.progress;
    progress.append(bar);
  }
  const cpu = vm.cpu === null ? "–" : `${Math.round(vm.cpu * 100)} %`;
  const host = element("td", vm.invited_as || vm.host);
  host.title = vm.host;
  line.append(name, state, element("td", cpu, "number"), element("td", size(vm.memory), "number"), element("td", size(vm.memory_used), "number"), progress, host, quickAction(vm));
  return line;
}

function quickAction(vm) {
  const cell = element("td", "", "number");
  const verb = ["resume", "start", "stop"].find((operation) => vm.operations.includes(operation));
  if (!verb) return cell;
  const made = element("button", { resume: "Resume", start: "Start", stop: "Stop" }[verb]);
  made.type = "button";
  made.addEventListener("click", () => attempt(async () => {
    const { outcomes } = await call(verb, { vms: vm.id });
    if (outcomes[vm.id].error) throw new RequestError(outcomes[vm.id].error.message, outcomes[vm.id].error.hint, 0);
  }));
  cell.append(made);
  return cell;
}

// Events.

function listen() {
  const socket = eventSocket(lastEvent);
  socket.addEventListener("open", () => {
    retryDelay = 500;
    byId("link").textContent = "live";
    attempt(refresh);
  });
  socket.addEventListener("message", ({ data }) => handleEvent(JSON.parse(data)));
  socket.addEventListener("close", () => {
    byId("link").textContent = "not connected; trying again …";
    setTimeout(listen, retryDelay * (0.5 + Math.random() / 2));
    retryDelay = Math.min(retryDelay * 2, 15000);
  });
}

// The event socket is opened once a request has shown that the token is right.
async function begin() {
  await refresh();
  if (!listening) listen();
  listening = true;
}

function handleEvent(event) {
  if (event.number === undefined) return;
  if (event.number <= lastEvent) return;
  lastEvent = event.number;
  if (event.kind === "vm_load") {
    const vm = vms.get(event.vm);
    if (!vm) return;
    Object.assign(vm, { cpu: event.cpu, memory_used: event.memory, progress: event.progress });
    const shown = document.querySelector(`tr[data-vm="${CSS.escape(vm.id)}"]`);
    if (isPressed) isStale = true;
    else if (shown) shown.replaceWith(row(vm));
    machine.load(vm, event);
    return;
  }
  const line = element("li");
  line.append(element("time", new Date(event.at * 1000).toLocaleTimeString()), element("span", event.kind, "kind"), element("span", [event.vm, event.text].filter(Boolean).join(": ")));
  byId("event-list").prepend(line);
  while (byId("event-list").childElementCount > MOST_EVENTS) byId("event-list").lastElementChild.remove();
  if (!event.kind.startsWith("command")) refreshSoon();
}

// Commands.

async function run(line) {
  const where = machine.chosen() || (vms.size === 1 ? [...vms.keys()][0] : selector());
  byId("outputs").replaceChildren();
  const boxes = new Map();
  const box = (vm) => {
    if (!boxes.has(vm)) {
      boxes.set(vm, element("div", "", "output"));
      boxes.get(vm).dataset.vm = vm;
      boxes.get(vm).append(element("strong", vm));
      byId("outputs").append(boxes.get(vm));
    }
    return boxes.get(vm);
  };
  const decoders = new Map();
  await follow("/api/exec?follow=yes", { vms: where, argv: split(line) }, (message) => {
    if (message.error) throw new RequestError(message.error.message, message.error.hint, 0);
    if (message.result) {
      running = message.result.command;
      byId("run-cancel").hidden = false;
      return;
    }
    if (message.command) {
      for (const [vm, answer] of Object.entries(message.command.answers)) box(vm).firstChild.textContent = `${vm} · ${ended(answer)}`;
      return;
    }
    const key = `${message.vm} ${message.stream}`;
    if (!decoders.has(key)) decoders.set(key, new TextDecoder());
    const bytes = Uint8Array.from(atob(message.data), (sign) => sign.charCodeAt(0));
    const text = decoders.get(key).decode(bytes, { stream: true });
    const target = box(message.vm);
    if (target.textContent.length < MOST_OUTPUT) target.append(element("span", text, message.stream === "stderr" ? "err" : ""));
  });
}

function labelsIn(text) {
  const pairs = split(text).map((word) => [word, word.indexOf("=")]);
  const wrong = pairs.find(([, at]) => at < 1);
  if (wrong) throw new RequestError(`found the label ${wrong[0]}, expected NAME=VALUE`, "", 0);
  return Object.fromEntries(pairs.map(([word, at]) => [word.slice(0, at), word.slice(at + 1)]));
}

function ended(answer) {
  if (answer.error) return answer.error;
  if (answer.state !== "ended") return `${answer.state}: ${answer.why}`;
  return answer.signal ? `signal ${answer.signal}` : `exit code ${answer.code}`;
}

byId("run").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => run(byId("run-line").value)).finally(() => { byId("run-cancel").hidden = true; });
});
byId("run-cancel").addEventListener("click", () => attempt(() => call("cancel", { id: running })));
byId("filter").addEventListener("input", refreshSoon);
byId("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("ask-token").hidden = true;
  attempt(begin);
});
byId("new").addEventListener("click", () => { byId("create").hidden = false; byId("create").elements.name.focus(); });
byId("create-cancel").addEventListener("click", () => { byId("create").hidden = true; });
byId("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = event.target.elements;
  attempt(async () => {
    await call("create", {
      name: given.name.value,
      image: given.image.value,
      memory: given.memory.value,
      cpus: Number(given.cpus.value),
      disk: given.disk.value || null,
      labels: labelsIn(given.labels.value),
      network: given.network.checked,
      display: given.display.checked,
      autostart: given.autostart.checked,
    });
    event.target.reset();
    event.target.hidden = true;
  });
});
machine.prepare(attempt, draw);
attempt(begin);
