// Invocations that nobody waits for: what waits, runs, is tried again, and has failed for good.

import * as api from "./api.js";
import { ago, bytes, cell, command, confirm, count, h, keyed, moment, notice, pairs, pill, set, table } from "./dom.js";

const PAUSE_MS = 2000;
/** The oldest so many are shown. */
const LISTED_MAX = 200;
const BODY_CHARACTERS_MAX = 16 * 1024;
const KINDS = [["", "All"], ["waiting", "Waiting"], ["running", "Running"], ["retrying", "Retrying"], ["dead", "Dead"]];

const kindOf = (entry) => (entry.state === "waiting" && entry.attempts > 0 ? "retrying" : entry.state);
const COLORS = { waiting: "dot", running: "good dot live", retrying: "warn dot", dead: "bad dot" };
const encoded = (entry) => encodeURIComponent(entry.call_id);

function outcome(entry) {
  if (!entry.last) return "not tried yet";
  const { status, error } = entry.last;
  return error ?? `answered ${status}`;
}

/** The invocation in full, in a dialog. */
async function showDetails(entry) {
  const content = h("div", null, h("p", { className: "muted" }, "Loading …"));
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { ariaLabel: `Invocation ${entry.call_id}` }, h("h2", null, entry.call_id), content, h("div", { className: "actions" }, close));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  try {
    const [found] = await api.get(`/system/async/${encoded(entry)}`);
    const raw = Uint8Array.from(atob(found.body), (character) => character.charCodeAt(0));
    const text = new TextDecoder().decode(raw).slice(0, BODY_CHARACTERS_MAX);
    set(
      content,
      pairs([
        ["Function", found.function],
        ["Request", h("code", null, `${found.method} ${found.path}`)],
        ["Accepted", moment(found.accepted_ms)],
        ["Attempts", count(found.attempts)],
        ["Last", outcome(found)],
        found.callback && ["Result goes to", h("code", null, found.callback)],
      ]),
      h("h3", null, "Body"),
      text ? h("pre", null, text) : h("p", { className: "muted" }, "It is empty."),
      h("details", null, h("summary", null, "Headers"), pairs(found.headers.map(([name, value]) => [name, value]))),
    );
  } catch (error) {
    set(content, notice("bad", null, h("p", null, error.message)));
  }
}

function row(first, refresh, tell) {
  const id = h("button", { type: "button", className: "plain mono", onclick: () => showDetails(first) }, first.call_id.slice(0, 40));
  const parts = Object.fromEntries(["state", "attempts", "last", "age"].map((name) => [name, h("span")]));
  const retry = h("button", { type: "button", className: "slim" }, "Retry now");
  const drop = h("button", { type: "button", className: "slim danger" }, "Drop");
  retry.addEventListener("click", async () => {
    retry.disabled = true;
    try {
      await api.post(`/system/async/${encoded(first)}/retry`);
      tell(notice("good", null, `${first.call_id} is tried again.`));
      await refresh();
    } catch (error) {
      tell(notice("bad", "It was not tried again", h("p", null, error.message)));
    }
    retry.disabled = false;
  });
  drop.addEventListener("click", () =>
    confirm({
      title: "Drop this invocation?",
      text: `${first.call_id} of ${api.shortName(first.function)} is forgotten, with its body.`,
      action: "Drop it",
      act: async () => {
        await api.remove(`/system/async/${encoded(first)}`);
        await refresh();
      },
    }),
  );
  const link = h("a", { href: `#/function/${encodeURIComponent(first.function)}` }, api.shortName(first.function));
  const node = h(
    "tr",
    null,
    cell("", { className: "lead" }, id, h("div", { className: "under mono" }, `${first.method} ${first.path.slice(0, 120)}, ${bytes(first.body_bytes)}`)),
    cell("Function", null, link),
    cell("State", null, parts.state),
    cell("Attempts", { className: "right" }, parts.attempts),
    cell("Last outcome", null, parts.last),
    cell("Accepted", { className: "nowrap" }, parts.age),
    cell("", { className: "bare" }, h("div", { className: "actions" }, retry, drop)),
  );
  return {
    node,
    update(entry) {
      const kind = kindOf(entry);
      set(parts.state, pill(COLORS[kind] ?? "", kind === "retrying" && entry.due_ms > Date.now() ? `retrying ${ago(entry.due_ms)}` : kind));
      set(parts.attempts, count(entry.attempts));
      set(parts.last, outcome(entry));
      set(parts.age, ago(entry.accepted_ms));
      retry.hidden = kind === "running";
      drop.hidden = kind === "running";
    },
  };
}

export function queue({ signal, every }) {
  const told = h("div", { ariaLive: "polite" });
  const failed = h("div");
  const body = h("tbody");
  let kind = "";
  let entries = [];
  const dropDead = h("button", { type: "button", className: "danger", hidden: true }, "Drop all dead");
  const buttons = KINDS.map(([value, title]) => h("button", { type: "button", ariaPressed: String(value === kind), onclick: () => choose(value) }, title));
  const columns = [["Invocation"], ["Function"], ["State"], ["Attempts", "right"], ["Last outcome"], ["Accepted"], [""]];
  const none = h("p", { className: "muted", hidden: true }, "None is in this state.");
  const card = h("section", { className: "card table", hidden: true }, table("Queue", columns, body), none);
  const empty = h(
    "div",
    { className: "card empty", hidden: true },
    h("h2", null, "The queue is empty"),
    h("p", null, "Invocations that nobody waits for come here until they are answered. They are on disk, survive a restart, and are tried again when they fail."),
    command("spore invoke hello --async --data Ada"),
  );
  const choose = (value) => {
    kind = value;
    buttons.forEach((button, index) => (button.ariaPressed = String(KINDS[index][0] === kind)));
    show();
  };
  const show = () => {
    const shown = entries.filter((entry) => kind === "" || kindOf(entry) === kind);
    KINDS.forEach(([value, title], index) => {
      const number = entries.filter((entry) => value === "" || kindOf(entry) === value).length;
      set(buttons[index], entries.length >= LISTED_MAX ? title : `${title} ${number}`);
    });
    card.hidden = entries.length === 0;
    empty.hidden = entries.length > 0;
    none.hidden = shown.length > 0;
    dropDead.hidden = !entries.some((entry) => entry.state === "dead");
    keyed(body, shown, (entry) => entry.call_id, (entry) => row(entry, refresh, (node) => set(told, node)));
  };
  const refresh = async () => {
    // The dead first among those that are asked for: they are what somebody has to look at.
    const ask = (state) => api.get(`/system/async?state=${state}&limit=${LISTED_MAX}`, signal);
    const [dead, alive] = await Promise.all([ask("dead"), ask("alive")]);
    entries = [...dead, ...alive];
    set(failed);
    show();
  };
  dropDead.addEventListener("click", () =>
    confirm({
      title: "Drop all dead invocations?",
      text: "Those that have failed for good are forgotten, of all functions, with their bodies.",
      action: "Drop them",
      act: async () => {
        await api.remove("/system/async?state=dead");
        await refresh();
      },
    }),
  );
  every(PAUSE_MS, refresh, (error) => set(failed, notice("bad", "The queue cannot be shown", h("p", null, error.message))));
  const sub = "Invocations that nobody waits for.";
  return [
    h("div", { className: "page-head" }, h("div", null, h("h1", null, "Queue"), h("p", { className: "sub" }, sub)), h("div", { className: "actions" }, dropDead)),
    failed,
    told,
    h("div", { className: "tabs spaced", role: "group", ariaLabel: "State" }, buttons),
    card,
    empty,
  ];
}
