// All functions at a glance.

import * as api from "./api.js";
import { sparkline } from "./charts.js";
import { bytes, cell, command, count, h, keyed, notice, pill, rate, set, table } from "./dom.js";

const PAUSE_MS = 2000;
/** Values of a sparkline. */
const ROOM = 45;
/** Functions whose memory is asked for; each is a request. */
const MEASURED_MAX = 20;

/** How a function is, in a word. */
export function state({ starting = 0, idle = 0, busy = 0, waiting = 0 }) {
  if (waiting > 0 && starting === 0 && idle === 0) return pill("warn dot live", "saturated");
  if (busy > 0) return pill("good dot live", "busy");
  if (starting > 0) return pill("warn dot live", "starting");
  if (idle > 0) return pill("good dot", "ready");
  return pill("dot", "at zero");
}

/** The name of an image with a digest cut to what tells it apart. */
const shortImage = (image) => image.replace(/(@sha256:[0-9a-f]{12})[0-9a-f]+$/, "$1…");

function row(first) {
  const full = api.key(first);
  const link = h("a", { className: "name", href: `#/function/${encodeURIComponent(full)}` }, api.shortName(full));
  const image = h("div", { className: "under mono" });
  const parts = Object.fromEntries(["state", "replicas", "total", "rate", "memory"].map((name) => [name, h("span")]));
  const spark = sparkline(`Invocations of ${full} a second, lately`);
  const isolation = h("span");
  const history = [];
  let before = null;
  const node = h(
    "tr",
    null,
    cell("", { className: "lead" }, link, image),
    cell("State", null, parts.state),
    cell("Isolation", null, isolation),
    cell("Replicas", { className: "right" }, parts.replicas),
    cell("Invocations", { className: "right" }, parts.total),
    cell("Rate", { className: "right" }, parts.rate),
    cell("Lately", null, spark.node),
    cell("Memory", { className: "right" }, parts.memory),
  );
  return {
    node,
    update(entry) {
      const now = performance.now();
      const total = entry.invocationCount ?? 0;
      if (before && now > before.at + 200) {
        history.push(Math.max(0, ((total - before.total) * 1000) / (now - before.at)));
        if (history.length > ROOM) history.shift();
        before = { at: now, total };
      }
      before ??= { at: now, total };
      set(image, shortImage(entry.image));
      image.title = entry.image;
      set(isolation, entry.sandbox !== "unikernel" ? entry.sandbox : entry.isolation === "vm" ? "VM" : entry.isolation);
      set(parts.state, state(entry.instances));
      const { idle = 0, busy = 0, starting = 0 } = entry.instances;
      set(parts.replicas, idle + busy + starting === 0 ? "0" : `${idle} idle, ${busy} busy`);
      set(parts.total, count(total));
      set(parts.rate, rate(history.at(-1)));
      set(parts.memory, entry.memory === undefined ? "–" : bytes(entry.memory));
      spark.draw(history, ROOM);
    },
  };
}

/** What metrics say of each function's instances, by NAME.NAMESPACE. */
function instancesOf(samples) {
  const names = {
    spore_instances_idle: "idle",
    spore_instances_starting: "starting",
    spore_requests_waiting: "waiting",
    gateway_service_ready_count: "ready",
    gateway_function_invocation_inflight: "busy",
  };
  const found = new Map();
  for (const { name, labels, value } of samples) {
    const field = names[name];
    if (!field || !labels.function_name) continue;
    const entry = found.get(labels.function_name) ?? {};
    entry[field] = value;
    found.set(labels.function_name, entry);
  }
  for (const entry of found.values()) entry.busy = Math.max(0, (entry.ready ?? 0) - (entry.idle ?? 0));
  return found;
}

function nothingYet() {
  return h(
    "div",
    { className: "card empty" },
    h("h2", null, "No function is deployed yet"),
    h("p", null, "Deploy an image from a registry here, or make a function out of a folder with the command line:"),
    command("spore new hello --lang c && spore deploy hello"),
    h("a", { className: "button primary", href: "#/deploy" }, "Deploy from an image"),
  );
}

export function overview({ signal, every }) {
  const told = h("div");
  const body = h("tbody");
  const sub = h("p", { className: "sub" }, "\u00a0");
  const columns = [["Function"], ["State"], ["Isolation"], ["Replicas", "right"], ["Invocations", "right"], ["Rate", "right"], ["Lately"], ["Memory", "right"]];
  const card = h("section", { className: "card table", hidden: true }, table("Functions", columns, body));
  const empty = nothingYet();
  empty.hidden = true;

  const refresh = async () => {
    const [list, metrics] = await Promise.all([api.functions(signal), api.text("/metrics", signal)]);
    const instances = instancesOf(api.parseMetrics(metrics));
    const entries = list.map((entry) => ({ ...entry, instances: instances.get(api.key(entry)) ?? {} }));
    const running = entries.filter((entry) => (entry.instances.ready ?? 0) > 0).slice(0, MEASURED_MAX);
    await Promise.all(
      running.map(async (entry) => {
        const activity = await api.get(api.path(api.key(entry), "/activity"), signal).catch(() => null);
        entry.memory = activity?.instances.memoryBytes;
      }),
    );
    set(told);
    card.hidden = entries.length === 0;
    empty.hidden = entries.length > 0;
    const ready = entries.reduce((sum, entry) => sum + (entry.instances.ready ?? 0), 0);
    set(sub, entries.length === 0 ? "\u00a0" : `${count(entries.length)} deployed, ${count(ready)} ${ready === 1 ? "instance" : "instances"} ready`);
    keyed(body, entries, api.key, row);
  };
  every(PAUSE_MS, refresh, (error) => set(told, notice("bad", "The functions cannot be listed", error.message)));
  return [h("div", { className: "page-head" }, h("div", null, h("h1", null, "Functions"), sub)), told, card, empty];
}
