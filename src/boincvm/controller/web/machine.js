// The view of one machine: its description, screen, snapshots, files, log and load.

import { call, getFile, putFile, screenAddress } from "./api.js";
import { Plot } from "./plot.js";
import { button, element, size } from "./text.js";

const byId = (id) => document.getElementById(id);
// The controller lists the operations that are possible for each machine.
const ACTIONS = [
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
let attempt = () => {};
let plots = null;

export function chosen() {
  return shown;
}

// `run` calls a function and shows its error, if there is one; `changed` redraws the list.
export function prepare(run, changed) {
  attempt = run;
  plots = {
    cpu: new Plot(byId("plot-cpu"), { name: "Processor", format: PERCENT, unit: 0.1 }),
    memory: new Plot(byId("plot-memory"), { name: "Memory on the host", format: size, unit: 2 ** 20 * 2 ** 4 }),
  };
  byId("one-close").addEventListener("click", () => { close(); changed(); });
  byId("take").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = event.target.elements.name.value || null;
    attempt(async () => { await operate("snapshot_take", { name }); event.target.reset(); await snapshots(); });
  });
  byId("put").addEventListener("submit", (event) => {
    event.preventDefault();
    const file = event.target.querySelector("[type=file]").files[0];
    const path = event.target.elements.path.value || file.name;
    attempt(async () => { check(await putFile(shown, path, file)); event.target.reset(); showNote(`${path} is there`); });
  });
  byId("get").addEventListener("submit", (event) => {
    event.preventDefault();
    const path = event.target.elements.path.value;
    attempt(async () => save(await getFile(shown, path), path.split("/").pop() || "file"));
  });
}

function showNote(text) {
  byId("one-what").title = text;
  byId("put").elements.path.placeholder = text;
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

async function operate(operation, parameters = {}) {
  check(await call(operation, { vms: shown, ...parameters }));
}

export function close() {
  shown = null;
  endScreen();
  byId("one").hidden = true;
  document.querySelector("main").classList.remove("open");
}

export async function open(vm) {
  shown = vm.id;
  samples = [];
  endScreen();
  byId("one").hidden = false;
  document.querySelector("main").classList.add("open");
  byId("one-name").textContent = vm.name;
  byId("snapshots").replaceChildren();
  byId("log").textContent = "";
  show(vm);
  samples = (await call("history", { vm: vm.id })).samples;
  plot(vm);
  // A machine of another host has an image here if its controller can be asked.
  if (vm.is_local || (vm.image && vm.state !== "unknown")) {
    await snapshots();
    byId("log").textContent = (await call("logs", { vm: vm.id, lines: 100 })).lines.join("\n");
  }
}

export function show(vm) {
  const parts = [vm.state_label, vm.image, vm.cpus && `${vm.cpus} processor${vm.cpus > 1 ? "s" : ""}`, vm.memory && `${size(vm.memory)} of memory`, vm.image && (vm.disk ? `${size(vm.disk)} of disk` : "the image's disk"), vm.autostart && "starts with the host", vm.network ? "network" : ""];
  byId("one-what").textContent = parts.filter(Boolean).join(" · ");
  byId("one-why").textContent = vm.why;
  byId("one-acts").replaceChildren(
    ...ACTIONS.filter(([, operation]) => vm.operations.includes(operation)).map(([name, operation, warning]) =>
      button(name, () => {
        if (!warning || confirm(`${name} ${vm.name}? ${warning}`)) attempt(() => operate(operation));
      }, warning ? "danger" : ""),
    ),
  );
  byId("one-acts").dataset.state = vm.state;
  showScreen(vm);
}

export function load(vm, event) {
  if (vm.id !== shown) return;
  samples.push(event);
  if (samples.length > 360) samples.shift();
  plot(vm);
}

function plot(vm) {
  const series = (name) => samples.map((sample) => [sample.at, sample[name]]);
  const cpus = vm.cpus || 1;
  plots.cpu.set(series("cpu"), cpus, ` of ${PERCENT(cpus)}`);
  plots.memory.set(series("memory"), vm.memory || 0, vm.memory ? `, and the guest was given ${size(vm.memory)}` : "");
}

async function snapshots() {
  const found = (await call("snapshot_list", { vm: shown })).snapshots;
  byId("snapshots").replaceChildren(
    ...found.map((snapshot) => {
      const line = element("li");
      const parts = [snapshot.name, snapshot.description, new Date(snapshot.made * 1000).toLocaleString(), size(snapshot.size)];
      line.append(element("span", parts.filter(Boolean).join(" · ")));
      const actions = element("span", "", "acts");
      actions.append(
        button("Restore", () => {
          if (confirm(`Set ${shown} back to ${snapshot.name}? What came after it is lost.`)) attempt(() => operate("snapshot_restore", { name: snapshot.name }));
        }),
        button("Remove", () => {
          if (confirm(`Remove the snapshot ${snapshot.name}?`)) attempt(async () => { await operate("snapshot_remove", { name: snapshot.name }); await snapshots(); });
        }, "danger"),
      );
      line.append(actions);
      return line;
    }),
  );
}

function endScreen() {
  const ended = screen;
  screen = null;
  if (ended) ended.disconnect();
  byId("screen").replaceChildren();
  byId("screen").classList.remove("on");
}

async function showScreen(vm) {
  const runs = vm.operations.includes("stop");
  if (!vm.display || !runs) {
    endScreen();
    byId("screen-text").textContent = vm.display ? "It is off." : "It has none: a machine has one that was created with a screen.";
    return;
  }
  if (screen) return;
  byId("screen-text").textContent = "";
  let RFB;
  try {
    RFB = (await import("/novnc/core/rfb.js")).default;
  } catch {
    byId("screen-text").textContent = "To see it, install noVNC on the controller's host: apt-get install novnc";
    return;
  }
  if (screen || shown !== vm.id) return;
  const { url, wsProtocols } = screenAddress(vm.id);
  byId("screen").classList.add("on");
  const opened = new RFB(byId("screen"), url, { wsProtocols });
  opened.scaleViewport = true;
  opened.addEventListener("disconnect", () => {
    if (screen !== opened) return;
    screen = null;
    endScreen();
  });
  screen = opened;
}
