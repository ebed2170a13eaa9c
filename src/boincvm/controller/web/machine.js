// One machine's own view: what it is, its screen, snapshots, files, log and load.

import { call, getFile, putFile, screenPlace } from "./api.js";
import { Plot } from "./plot.js";
import { button, element, size } from "./text.js";

const at = (id) => document.getElementById(id);
// Which of them make sense, the controller says of each machine.
const ACTS = [
  ["Start", "start"],
  ["Suspend", "pause"],
  ["Resume", "resume"],
  ["Save to disk", "save"],
  ["Shut down", "stop"],
  ["Reset", "reset", "What it has not written to its disk is lost."],
  ["Power off", "power_off", "What it has not written to its disk is lost."],
  ["Forget saved state", "discard", "It will boot, and what ran in it is lost."],
  ["Remove", "remove", "Its disk and its snapshots are removed."],
];
const PERCENT = (value) => `${Math.round(value * 100)} %`;

let shown = null;
let samples = [];
let screen = null;
let tell = () => {};
let plots = null;

export function chosen() {
  return shown;
}

// `act` does something and shows what goes wrong.
export function prepare(act, changed) {
  tell = act;
  plots = {
    cpu: new Plot(at("plot-cpu"), { name: "Processor", say: PERCENT, unit: 0.1 }),
    memory: new Plot(at("plot-memory"), { name: "Memory on the host", say: size, unit: 2 ** 20 * 2 ** 4 }),
  };
  at("one-close").addEventListener("click", () => { close(); changed(); });
  at("take").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = event.target.elements.name.value || null;
    tell(async () => { await on("snapshot_take", { name }); event.target.reset(); await snapshots(); });
  });
  at("put").addEventListener("submit", (event) => {
    event.preventDefault();
    const file = event.target.querySelector("[type=file]").files[0];
    const path = event.target.elements.path.value || file.name;
    tell(async () => { check(await putFile(shown, path, file)); event.target.reset(); say(`${path} is there`); });
  });
  at("get").addEventListener("submit", (event) => {
    event.preventDefault();
    const path = event.target.elements.path.value;
    tell(async () => save(await getFile(shown, path), path.split("/").pop() || "file"));
  });
}

function say(text) {
  at("one-what").title = text;
  at("put").elements.path.placeholder = text;
}

function save({ blob, isTree }, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = isTree ? `${name}.tar` : name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function check({ outcomes }) {
  for (const outcome of Object.values(outcomes)) {
    if (outcome.error) throw Object.assign(new Error(outcome.error.message), outcome.error);
  }
}

async function on(operation, given = {}) {
  check(await call(operation, { vms: shown, ...given }));
}

export function close() {
  shown = null;
  endScreen();
  at("one").hidden = true;
  document.querySelector("main").classList.remove("open");
}

export async function open(vm) {
  shown = vm.id;
  samples = [];
  endScreen();
  at("one").hidden = false;
  document.querySelector("main").classList.add("open");
  at("one-name").textContent = vm.name;
  at("snapshots").replaceChildren();
  at("log").textContent = "";
  show(vm);
  samples = (await call("history", { vm: vm.id })).samples;
  plot(vm);
  if (vm.is_local) {
    await snapshots();
    at("log").textContent = (await call("logs", { vm: vm.id, lines: 100 })).lines.join("\n");
  }
}

export function show(vm) {
  const parts = [vm.state.replace("_", " "), vm.image, vm.cpus && `${vm.cpus} processor${vm.cpus > 1 ? "s" : ""}`, vm.memory && `${size(vm.memory)} of memory`, vm.network ? "network" : ""];
  at("one-what").textContent = parts.filter(Boolean).join(" · ");
  at("one-why").textContent = vm.why;
  at("one-acts").replaceChildren(
    ...ACTS.filter(([, operation]) => vm.operations.includes(operation)).map(([name, operation, warning]) =>
      button(name, () => {
        if (!warning || confirm(`${name} ${vm.name}? ${warning}`)) tell(() => on(operation));
      }, warning ? "danger" : ""),
    ),
  );
  at("one-acts").dataset.state = vm.state;
  showScreen(vm);
}

export function load(vm, event) {
  if (vm.id !== shown) return;
  samples.push(event);
  if (samples.length > 360) samples.shift();
  plot(vm);
}

function plot(vm) {
  const of = (name) => samples.map((one) => [one.at, one[name]]);
  const cpus = vm.cpus || 1;
  plots.cpu.set(of("cpu"), cpus, ` of ${PERCENT(cpus)}`);
  plots.memory.set(of("memory"), vm.memory || 0, vm.memory ? `, and the guest was given ${size(vm.memory)}` : "");
}

async function snapshots() {
  const found = (await call("snapshot_list", { vm: shown })).snapshots;
  at("snapshots").replaceChildren(
    ...found.map((one) => {
      const line = element("li");
      const words = [one.name, one.description, new Date(one.made * 1000).toLocaleString(), size(one.size)];
      line.append(element("span", words.filter(Boolean).join(" · ")));
      const acts = element("span", "", "acts");
      acts.append(
        button("Restore", () => {
          if (confirm(`Set ${shown} back to ${one.name}? What came after it is lost.`)) tell(() => on("snapshot_restore", { name: one.name }));
        }),
        button("Remove", () => {
          if (confirm(`Remove the snapshot ${one.name}?`)) tell(async () => { await on("snapshot_remove", { name: one.name }); await snapshots(); });
        }, "danger"),
      );
      line.append(acts);
      return line;
    }),
  );
}

function endScreen() {
  const ended = screen;
  screen = null;
  if (ended) ended.disconnect();
  at("screen").replaceChildren();
  at("screen").classList.remove("on");
}

async function showScreen(vm) {
  const runs = vm.operations.includes("stop");
  if (!vm.display || !runs) {
    endScreen();
    at("screen-words").textContent = vm.display ? "It is off." : "It has none: a machine has one that was created with a screen.";
    return;
  }
  if (screen) return;
  at("screen-words").textContent = "";
  let RFB;
  try {
    RFB = (await import("/novnc/core/rfb.js")).default;
  } catch {
    at("screen-words").textContent = "To see it, install noVNC on the controller's host: apt-get install novnc";
    return;
  }
  if (screen || shown !== vm.id) return;
  const { url, wsProtocols } = screenPlace(vm.id);
  at("screen").classList.add("on");
  const opened = new RFB(at("screen"), url, { wsProtocols });
  opened.scaleViewport = true;
  opened.addEventListener("disconnect", () => {
    if (screen !== opened) return;
    screen = null;
    endScreen();
  });
  screen = opened;
}
