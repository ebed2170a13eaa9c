// The page: all machines, live; commands in those that are shown; events.

import { call, eventSocket, follow, Refused, setToken } from "./api.js";
import * as machine from "./machine.js";
import { element, size, split } from "./text.js";

const at = (id) => document.getElementById(id);
const MOST_EVENTS = 300;
const MOST_OUTPUT = 200000;
let vms = new Map();
let last = 0;
let running = null;
let wait = 500;
let refreshing = null;
let listening = false;

function trouble(error) {
  if (error instanceof Refused && error.status === 401) {
    at("ask-token").hidden = false;
    at("token").focus();
  }
  at("trouble").hidden = !error;
  at("trouble").textContent = error ? [error.message, error.hint].filter(Boolean).join("\n") : "";
}

async function act(work) {
  try {
    await work();
    trouble(null);
  } catch (error) {
    trouble(error);
  }
}

function selector() {
  return at("filter").value.trim() || "all";
}

async function refresh() {
  const told = await call("list", { vms: selector() });
  vms = new Map(told.vms.map((vm) => [vm.id, vm]));
  draw();
}

// However many events come at once, the list is asked for once more.
function refreshSoon() {
  refreshing ??= setTimeout(() => { refreshing = null; act(refresh); }, 50);
}

function draw() {
  at("rows").replaceChildren(...[...vms.values()].map(row));
  at("none").hidden = vms.size > 0;
  const chosen = machine.chosen();
  at("run-where").textContent = chosen || (vms.size === 1 ? [...vms.keys()][0] : `all ${vms.size} that are shown`);
  if (chosen && vms.has(chosen)) machine.show(vms.get(chosen));
  else if (chosen) { machine.close(); draw(); }
}

function row(vm) {
  const line = element("tr", "", vm.id === machine.chosen() ? "chosen" : "");
  line.dataset.vm = vm.id;
  const name = element("td");
  const open = element("button", vm.name, "name");
  open.type = "button";
  open.addEventListener("click", () => act(async () => { const opened = machine.open(vm); draw(); await opened; }));
  const labels = Object.entries(vm.labels).map(([key, value]) => `${key}=${value}`).join("  ");
  name.append(open, element("div", labels, "labels"));
  const state = element("td");
  state.append(element("span", vm.state.replace("_", " "), `state ${vm.state}`));
  const progress = element("td");
  if (vm.progress !== null) {
    const bar = element("progress");
    bar.value = vm.progress;
    progress.append(bar);
  }
  const cpu = vm.cpu === null ? "–" : `${Math.round(vm.cpu * 100)} %`;
  line.append(name, state, element("td", cpu, "number"), element("td", size(vm.memory), "number"), element("td", size(vm.memory_used), "number"), progress, element("td", vm.host), quick(vm));
  return line;
}

function quick(vm) {
  const cell = element("td", "", "number");
  const verb = ["resume", "start", "stop"].find((one) => vm.operations.includes(one));
  if (!verb) return cell;
  const made = element("button", { resume: "Resume", start: "Start", stop: "Stop" }[verb]);
  made.type = "button";
  made.addEventListener("click", () => act(async () => {
    const { outcomes } = await call(verb, { vms: vm.id });
    if (outcomes[vm.id].error) throw new Refused(outcomes[vm.id].error.message, outcomes[vm.id].error.hint, 0);
  }));
  cell.append(made);
  return cell;
}

// Events.

function listen() {
  const socket = eventSocket(last);
  socket.addEventListener("open", () => {
    wait = 500;
    at("link").textContent = "live";
    act(refresh);
  });
  socket.addEventListener("message", ({ data }) => take(JSON.parse(data)));
  socket.addEventListener("close", () => {
    at("link").textContent = "not connected; trying again …";
    setTimeout(listen, wait * (0.5 + Math.random() / 2));
    wait = Math.min(wait * 2, 15000);
  });
}

// Events are asked for once the token is known to be right.
async function begin() {
  await refresh();
  if (!listening) listen();
  listening = true;
}

function take(event) {
  if (event.number === undefined) return;
  if (event.number <= last) return;
  last = event.number;
  if (event.kind === "vm_load") {
    const vm = vms.get(event.vm);
    if (!vm) return;
    Object.assign(vm, { cpu: event.cpu, memory_used: event.memory, progress: event.progress });
    const shown = document.querySelector(`tr[data-vm="${CSS.escape(vm.id)}"]`);
    if (shown) shown.replaceWith(row(vm));
    machine.load(vm, event);
    return;
  }
  const line = element("li");
  line.append(element("time", new Date(event.at * 1000).toLocaleTimeString()), element("span", event.kind, "kind"), element("span", [event.vm, event.text].filter(Boolean).join(": ")));
  at("event-list").prepend(line);
  while (at("event-list").childElementCount > MOST_EVENTS) at("event-list").lastElementChild.remove();
  if (!event.kind.startsWith("command")) refreshSoon();
}

// Commands.

async function run(line) {
  const where = machine.chosen() || (vms.size === 1 ? [...vms.keys()][0] : selector());
  at("outputs").replaceChildren();
  const boxes = new Map();
  const box = (vm) => {
    if (!boxes.has(vm)) {
      boxes.set(vm, element("div", "", "output"));
      boxes.get(vm).dataset.vm = vm;
      boxes.get(vm).append(element("strong", vm));
      at("outputs").append(boxes.get(vm));
    }
    return boxes.get(vm);
  };
  const decoders = new Map();
  await follow("/api/exec?follow=yes", { vms: where, argv: split(line) }, (told) => {
    if (told.error) throw new Refused(told.error.message, told.error.hint, 0);
    if (told.result) {
      running = told.result.command;
      at("run-cancel").hidden = false;
      return;
    }
    if (told.command) {
      for (const [vm, answer] of Object.entries(told.command.answers)) box(vm).firstChild.textContent = `${vm} · ${ended(answer)}`;
      return;
    }
    const key = `${told.vm} ${told.stream}`;
    if (!decoders.has(key)) decoders.set(key, new TextDecoder());
    const bytes = Uint8Array.from(atob(told.data), (sign) => sign.charCodeAt(0));
    const text = decoders.get(key).decode(bytes, { stream: true });
    const target = box(told.vm);
    if (target.textContent.length < MOST_OUTPUT) target.append(element("span", text, told.stream === "stderr" ? "err" : ""));
  });
}

function ended(answer) {
  if (answer.error) return answer.error;
  if (answer.state !== "ended") return `${answer.state}: ${answer.why}`;
  return answer.signal ? `signal ${answer.signal}` : `exit code ${answer.code}`;
}

at("run").addEventListener("submit", (event) => {
  event.preventDefault();
  act(() => run(at("run-line").value)).finally(() => { at("run-cancel").hidden = true; });
});
at("run-cancel").addEventListener("click", () => act(() => call("cancel", { id: running })));
at("filter").addEventListener("input", refreshSoon);
at("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(at("token").value.trim());
  at("ask-token").hidden = true;
  act(begin);
});
at("new").addEventListener("click", () => { at("create").hidden = false; at("create").elements.name.focus(); });
at("create-cancel").addEventListener("click", () => { at("create").hidden = true; });
at("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = event.target.elements;
  act(async () => {
    await call("create", { name: given.name.value, image: given.image.value, memory: given.memory.value, cpus: Number(given.cpus.value), network: given.network.checked, display: given.display.checked });
    event.target.reset();
    event.target.hidden = true;
  });
});
machine.prepare(act, draw);
act(begin);
