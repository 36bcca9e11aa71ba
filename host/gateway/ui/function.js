// One function: what it does now, invoking it, its log, its settings.

import * as api from "./api.js";
import { chart, legend, percentile } from "./charts.js";
import { ago, bytes, command, confirm, count, h, moment, notice, pairs, rate, seconds, set } from "./dom.js";
import { invokeCard, stageBar } from "./invoke.js";
import { logCard } from "./log.js";
import { state } from "./overview.js";

const PAUSE_MS = 1500;
/** What the charts show, in seconds. */
const SPAN = 120;
/** Invocations that are drawn at most, the latest. */
const POINTS_MAX = 1500;

function tile(name) {
  const value = h("div", { className: "value" }, "–");
  const more = h("div", { className: "more" }, "\u00a0");
  return { node: h("div", { className: "tile" }, h("div", { className: "name" }, name), value, more), value, more };
}

/** Charts of the last two minutes. */
function charts(atEnd) {
  const rates = chart({ label: "Invocations a second", span: SPAN, format: (value) => rate(value), least: 1 });
  const latency = chart({ label: "Time of each invocation, cold and warm", span: SPAN, format: seconds, logarithmic: true });
  const memory = chart({ label: "Memory of all instances", span: SPAN, format: bytes, binary: true, least: 1 << 20 });
  rates.node.id = "chart-rate";
  latency.node.id = "chart-latency";
  memory.node.id = "chart-memory";
  const legends = [h("p", { className: "legend" }), h("p", { className: "legend" }), h("p", { className: "legend" })];
  [rates, latency, memory].forEach((one) => atEnd(one.stop));
  const rateData = [];
  const failedData = [];
  const memoryData = [];
  const seen = new Map();
  let before = null;

  const trim = (data, now) => {
    while (data.length > 0 && data[0][0] < now - SPAN * 1000) data.shift();
  };
  function update(activity) {
    const now = Date.now();
    const answers = Object.entries(activity.answers);
    const failed = answers.reduce((sum, [status, number]) => sum + (Number(status) >= 500 ? number : 0), 0);
    if (before) {
      const passed = (now - before.now) / 1000;
      rateData.push([now, Math.max(0, activity.invocationCount - before.total) / passed]);
      failedData.push([now, Math.max(0, failed - before.failed) / passed]);
    }
    before = { now, total: activity.invocationCount, failed };
    if (activity.instances.memoryBytes !== undefined || activity.instances.idle + activity.instances.busy === 0) {
      memoryData.push([now, activity.instances.memoryBytes ?? 0]);
    }
    [rateData, failedData, memoryData].forEach((data) => trim(data, now));
    // The same invocation is told again each time, a little older, under the same number.
    for (const { agoSeconds, seconds: duration, start, number } of activity.invocations) {
      const key = `${activity.since} ${start} ${number}`;
      if (!seen.has(key)) seen.set(key, [now - agoSeconds * 1000, duration, start]);
    }
    for (const [key, [at]] of seen) if (at < now - SPAN * 1000 || seen.size > POINTS_MAX) seen.delete(key);
    const points = [...seen.values()].sort((a, b) => a[0] - b[0]);
    const of = (kind) => points.filter(([, , start]) => start === kind).map(([at, duration]) => [at, duration]);
    const [cold, warm] = [of("cold"), of("warm")];
    const share = (data, part) => percentile(data.map(([, duration]) => duration), part);
    rates.draw([{ color: "accent", kind: "line", data: rateData }, { color: "bad", kind: "line", data: failedData.some(([, value]) => value > 0) ? failedData : [] }]);
    latency.draw(
      [{ color: "warm", kind: "points", data: warm }, { color: "cold", kind: "points", shape: "diamond", data: cold }],
      [{ color: "cold", value: share(cold, 0.5) }, { color: "warm", value: share(warm, 0.5) }],
    );
    memory.draw([{ color: "violet", kind: "line", data: memoryData }]);
    set(legends[0], legend([["accent", "", `all ${rate(rateData.at(-1)?.[1])}`], ["bad", "", `failed ${rate(failedData.at(-1)?.[1])}`]]));
    const figures = (data) => (data.length === 0 ? "none" : `p50 ${seconds(share(data, 0.5))}, p99 ${seconds(share(data, 0.99))}`);
    set(legends[1], legend([["cold", "diamond", `cold ${figures(cold)}`], ["warm", "round", `warm ${figures(warm)}`]]));
    const { measured, memoryBytes, idle, busy } = activity.instances;
    const each = measured > 0 ? `${bytes(memoryBytes / measured)} for each of ${measured}` : idle + busy > 0 ? "not known here" : "no instance";
    set(legends[2], legend([["violet", "", `${bytes(memoryBytes ?? 0)}: ${each}`]]));
    return { rateNow: rateData.at(-1)?.[1], failed };
  }
  const card = (title, one, below) => h("section", { className: "card" }, h("header", null, h("h2", null, title)), one.node, below);
  const node = h("div", { className: "grid" }, card("Rate", rates, legends[0]), card("Latency, cold and warm", latency, legends[1]), card("Memory", memory, legends[2]));
  return { node, update };
}

function settings(entry) {
  const table = (object) => pairs(Object.entries(object).map(([name, value]) => [h("code", null, name), h("code", null, value)]));
  const resources = (one) => (one ? [one.memory && `memory ${one.memory}`, one.cpu && `CPU ${one.cpu}`].filter(Boolean).join(", ") : "");
  const some = (object) => object && Object.keys(object).length > 0;
  return pairs([
    ["Image", h("code", null, entry.image)],
    ["Sandbox", entry.sandbox],
    ["Isolation", entry.isolation === "vm" ? "a virtual machine for each instance" : "a process for each instance"],
    ["Root", entry.root === "file-system" ? "a file system" : "the program alone"],
    ["Limits", resources(entry.limits) || "memory 128Mi, CPU 1 (defaults)"],
    ["Deployed first", moment(entry.createdAt)],
    some(entry.envVars) && ["Environment", table(entry.envVars)],
    some(entry.secrets) && ["Secrets", entry.secrets.join(", ")],
    some(entry.labels) && ["Labels", table(entry.labels)],
    some(entry.annotations) && ["Annotations", table(entry.annotations)],
  ]);
}

function scaleCard(full, signal) {
  const number = h("input", { type: "number", min: 0, max: 10000, value: 1, id: "scale-number" });
  const told = h("p", { className: "hint below", role: "status" }, "So many instances are kept started until the next deployment; 0 ends those that are idle.");
  const submit = async (event) => {
    event.preventDefault();
    try {
      await api.post(`/system/scale-function/${encodeURIComponent(full)}`, { replicas: Number(number.value) }, signal);
      set(told, `${number.value} ${number.value === "1" ? "instance is" : "instances are"} kept started.`);
    } catch (error) {
      set(told, error.message);
    }
  };
  const form = h("form", { onsubmit: submit }, h("div", { className: "pull" }, h("label", null, "Replicas kept", number), h("button", { type: "submit" }, "Scale")));
  return h("section", { className: "card" }, h("header", null, h("h2", null, "Scale")), form, told);
}

export function functionPage({ parameters: [full], signal, every, atEnd }) {
  const short = api.shortName(full);
  const told = h("div");
  const badge = h("span");
  const sub = h("p", { className: "sub mono" }, "\u00a0");
  const remove = h("button", { type: "button", className: "danger" }, "Remove");
  remove.addEventListener("click", () =>
    confirm({
      title: `Remove ${short}?`,
      text: "The function, its log and its statistics go. Invocations under way run to their end; its image stays in the store.",
      action: "Remove the function",
      act: async () => {
        const [functionName, namespace] = full.split(".");
        await api.remove("/system/functions", { functionName, namespace });
        location.hash = "#/";
      },
    }),
  );
  const tiles = Object.fromEntries(["Invocations", "Rate", "Replicas", "Memory", "Cold starts", "Failed"].map((name) => [name, tile(name)]));
  const shown = charts(atEnd);
  const details = h("div", null, h("p", { className: "muted" }, "Loading …"));
  const lastStart = h("div", null, h("p", { className: "muted" }, "No cold start since this version was deployed, or the daemon started."));
  let before = "";

  every(
    PAUSE_MS,
    async () => {
      const [entry, activity] = await Promise.all([api.get(api.path(full), signal), api.get(api.path(full, "/activity"), signal)]);
      set(told);
      const { idle, busy, starting, waiting, draining, min, max, measured, memoryBytes } = activity.instances;
      const { rateNow, failed } = shown.update(activity);
      set(badge, state(activity.instances));
      set(sub, entry.image);
      set(tiles.Invocations.value, count(activity.invocationCount));
      set(tiles.Invocations.more, waiting > 0 ? `${waiting} waiting` : "since the start");
      set(tiles.Rate.value, rate(rateNow));
      set(tiles.Rate.more, "now");
      set(tiles.Replicas.value, count(idle + busy + starting));
      set(tiles.Replicas.more, `${idle} idle, ${busy} busy${starting ? `, ${starting} starting` : ""}${draining ? `, ${draining} leaving` : ""} (${min} to ${max})`);
      set(tiles.Memory.value, measured > 0 ? bytes(memoryBytes) : idle + busy > 0 ? "–" : "0 B");
      set(tiles.Memory.more, measured > 1 ? `${bytes(memoryBytes / measured)} each` : "\u00a0");
      set(tiles["Cold starts"].value, count(activity.coldStartCount));
      set(tiles["Cold starts"].more, activity.coldStarts.length ? `last ${ago(Date.now() - activity.coldStarts.at(-1).agoSeconds * 1000)}` : "\u00a0");
      set(tiles.Failed.value, count(failed));
      tiles.Failed.value.className = failed > 0 ? "value bad" : "value";
      set(tiles.Failed.more, "answers of 5xx");
      const last = activity.coldStarts.at(-1);
      if (last) set(lastStart, h("p", { className: "number" }, `${seconds(last.wholeSeconds)} from the request to the last byte of its answer, ${ago(Date.now() - last.agoSeconds * 1000)}.`), stageBar(last.stages));
      const now = JSON.stringify([entry.image, entry.envVars, entry.labels, entry.annotations, entry.limits, entry.secrets, entry.isolation]);
      if (now !== before) set(details, settings(entry));
      before = now;
    },
    (error) => {
      const isGone = error.status === 404;
      set(told, notice("bad", isGone ? `There is no function ${short}` : "The function cannot be shown", h("p", null, isGone ? "It was removed, or never deployed here. " : `${error.message} `, h("a", { href: "#/" }, "Show all functions"))));
    },
  );
  return [
    h(
      "div",
      { className: "page-head" },
      h("div", null, h("div", { className: "actions" }, h("h1", null, short), badge), sub),
      h("div", { className: "actions" }, h("a", { className: "button", href: `#/edit/${encodeURIComponent(full)}` }, "Change settings"), remove),
    ),
    told,
    h("div", { className: "tiles" }, Object.values(tiles).map((one) => one.node)),
    shown.node,
    invokeCard(full),
    logCard(full, { signal }),
    h("div", { className: "grid" }, h("section", { className: "card" }, h("header", null, h("h2", null, "Last cold start")), lastStart), scaleCard(full, signal)),
    h("section", { className: "card" }, h("header", null, h("h2", null, "Settings")), details),
    h("details", { className: "card" }, h("summary", null, "From the command line"), [command(`spore invoke ${full} --data hello`), h("br"), command(`spore logs ${full} --follow`), h("br"), command(`spore stats ${full}`)]),
  ];
}
