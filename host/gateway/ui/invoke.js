// Invokes a function and shows what came of it: status, timing, stages, headers, body, log, and why it failed.

import * as api from "./api.js";
import { explain, explainBroken } from "./explain.js";
import { bytes, command, h, notice, pairs, pill, seconds, set } from "./dom.js";

/** More of a body is not read. */
const BODY_BYTES_MAX = 1024 * 1024;
/** More of it is not shown. */
const SHOWN_CHARACTERS_MAX = 64 * 1024;
const METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const BODILESS = ["GET", "HEAD"];
/** How often it is asked for the stages of a cold start, which are known a moment after its answer. */
const STAGES_TRIES = 8;

/** The stages of a cold start: as the API calls them, and what they are. */
export const STAGES = [
  ["queued", "waiting to begin"],
  ["shellTaken", "monitor process"],
  ["mapped", "memory in place"],
  ["firstInstruction", "rights given up"],
  ["handlerEntered", "boot to request read"],
  ["answer", "answer"],
];

/** A bar drawn to scale, with what its parts are below. Parts: { words, color, value in seconds }. */
function bar(label, parts) {
  const whole = parts.reduce((sum, { value }) => sum + value, 0) || 1;
  const drawn = parts.map(({ color, value }) => {
    const part = h("span", { className: `s${color}` });
    part.style.flexGrow = String((value / whole) * 1000);
    return part;
  });
  const list = parts.map(({ words, color, value }) => h("li", null, h("i", { className: `key s${color}` }), words, h("b", null, seconds(value))));
  return [h("div", { className: "stages", role: "img", ariaLabel: label }, drawn), h("ul", { className: "stage-list" }, list)];
}

/** The stages of a cold start as far as they are known. */
export function stageBar(stages) {
  const parts = STAGES.map(([name, words], color) => ({ words, color, value: stages[name] }));
  return bar("Stages of the cold start, drawn to scale", parts.filter(({ value }) => value !== null && value !== undefined));
}

/** Lines of "Name: value". */
function parseHeaders(text) {
  const headers = new Headers();
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`“${line}” is not a header: write it as Name: value`);
    try {
      headers.append(line.slice(0, at).trim(), line.slice(at + 1).trim());
    } catch {
      throw new Error(`“${line.slice(0, at)}” cannot be the name of a header, or its value has characters that none may have`);
    }
  }
  return headers;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function commandLine(method, path, headers, body) {
  const words = ["curl", "-i", "-X", method];
  headers.forEach((value, name) => words.push("-H", quoted(`${name}: ${value}`)));
  if (body && !BODILESS.includes(method)) words.push("--data-binary", quoted(body));
  words.push(quoted(location.origin + path));
  return words.join(" ");
}

/** Reads a body up to its limit: { chunks, length, isCut, isBroken }. */
async function readBody(answer) {
  const chunks = [];
  let length = 0;
  if (!answer.body) return { chunks, length };
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { chunks, length };
      chunks.push(value);
      length += value.length;
      if (length > BODY_BYTES_MAX) {
        await reader.cancel();
        return { chunks, length, isCut: true };
      }
    }
  } catch {
    return { chunks, length, isBroken: true };
  }
}

async function shownBody({ chunks, length, isCut }) {
  if (length === 0) return h("p", { className: "muted" }, "The body is empty.");
  const all = new Uint8Array(await new Blob(chunks).arrayBuffer());
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: !isCut }).decode(all);
  } catch {
    const digits = [...all.subarray(0, 1024)].map((byte) => byte.toString(16).padStart(2, "0"));
    const lines = Array.from({ length: Math.ceil(digits.length / 16) }, (_, row) => digits.slice(row * 16, row * 16 + 16).join(" "));
    return [h("p", { className: "hint" }, "It is no UTF-8 text; its first bytes:"), h("pre", { tabIndex: 0 }, lines.join("\n"))];
  }
  const isLong = text.length > SHOWN_CHARACTERS_MAX;
  return [
    h("pre", { id: "result-body", tabIndex: 0 }, isLong ? text.slice(0, SHOWN_CHARACTERS_MAX) : text),
    isCut && h("p", { className: "hint" }, `The answer is longer than ${bytes(BODY_BYTES_MAX)}: reading was given up.`),
    isLong && h("p", { className: "hint" }, `The first ${bytes(SHOWN_CHARACTERS_MAX)} are shown. `, saveLink(chunks)),
  ];
}

function saveLink(chunks) {
  const button = h("button", { type: "button", className: "plain" }, "Save what was read");
  button.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob(chunks, { type: "application/octet-stream" }));
    h("a", { href: address, download: "answer" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  return button;
}

/** What the function has written since the invocation began. */
async function logSince(full, since) {
  const lines = [];
  for await (const line of api.log(full, { since: new Date(since - 50).toISOString(), tail: "60" })) lines.push(line);
  return lines;
}

function showLog() {
  const log = document.getElementById("log");
  log?.scrollIntoView({ block: "center" });
  log?.focus({ preventScroll: true });
}

function explanation(found) {
  if (!found) return null;
  return notice(
    found.kind,
    found.title,
    h("p", null, found.text),
    pairs([
      ["Whose turn", `${found.whose}.`],
      ["Try again?", found.retry],
    ]),
    h("button", { type: "button", className: "plain", onclick: showLog }, "Go to the log"),
  );
}

async function showStages(place, full, callId, total) {
  for (let tries = 0; tries < STAGES_TRIES; tries += 1) {
    const activity = await api.get(api.path(full, "/activity")).catch(() => null);
    const start = activity?.coldStarts.find((one) => one.callId === callId);
    if (start) {
      set(place, h("h3", null, `Stages of the cold start: ${seconds(start.wholeSeconds)} of ${seconds(total)}`), stageBar(start.stages));
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  set(place, h("p", { className: "hint" }, "The stages of this cold start are not known: the answer was not complete, or others have started since."));
}

async function run(full, { method, path, headers, body }, place) {
  const target = `/function/${encodeURIComponent(full)}${path}`;
  const since = Date.now();
  const started = performance.now();
  set(place, h("p", { className: "muted", role: "status" }, "Waiting for the answer …"));
  let answer = null;
  try {
    // The name and password of this gateway are none of the function's business.
    const options = { method, headers, credentials: "omit", cache: "no-store", redirect: "manual", referrerPolicy: "no-referrer" };
    if (body && !BODILESS.includes(method)) options.body = body;
    answer = await fetch(target, options);
  } catch {
    set(place, explanation(explainBroken(false)), command(commandLine(method, target, headers, body)));
    return;
  }
  const head = (performance.now() - started) / 1000;
  if (answer.type === "opaqueredirect") {
    set(place, notice("warn", "The function answered with a redirect", h("p", null, "Browsers do not tell a page where to. The command line does:"), command(commandLine(method, target, headers, body))));
    return;
  }
  const read = await readBody(answer);
  const total = (performance.now() - started) / 1000;
  const field = (name) => answer.headers.get(name);
  const isGateways = field("x-openfaas-internal") !== null;
  const start = field("x-spore-start");
  const duration = Number(field("x-duration-seconds") ?? NaN);
  const text = isGateways ? await new Blob(read.chunks).text() : "";
  const found = read.isBroken
    ? explainBroken(true)
    : explain({ status: answer.status, isGateways, fault: field("x-spore-fault"), retryAfter: field("retry-after"), text });
  const kind = answer.status >= 500 || read.isBroken ? "bad" : answer.status >= 400 ? "warn" : "good";
  const stages = h("div", { id: "result-stages" });
  const log = h("div");
  set(
    place,
    h(
      "div",
      { className: "result-head" },
      pill(kind, h("span", { id: "result-status" }, String(answer.status), answer.statusText ? ` ${answer.statusText.slice(0, 40)}` : "")),
      start && pill(start === "cold" ? "cold" : "warm", `${start} start`.replace("warm start", "warm")),
      isGateways && pill("", "answered by the gateway"),
      h("span", { className: "muted number" }, `${seconds(total)} in this browser, ${bytes(read.length)}`),
    ),
    explanation(found),
    stages,
    h("h3", null, "Body"),
    await shownBody(read),
    h("details", null, h("summary", null, "Headers"), pairs([...answer.headers].map(([name, value]) => [name, value]))),
    log,
    h("details", null, h("summary", null, "The same from the command line"), command(commandLine(method, target, headers, body))),
  );
  if (start === "cold") void showStages(stages, full, field("x-call-id"), total);
  else if (start === "warm") {
    const parts = [
      { words: "the function, until its answer began", color: 5, value: duration },
      { words: "gateway, network and this browser", color: 0, value: Math.max(0, head - duration) },
      { words: "the rest of the body", color: 2, value: Math.max(0, total - head) },
    ];
    set(stages, h("h3", null, `Where the time went: ${seconds(total)}`), bar("Parts of the time, drawn to scale", parts));
  }
  // What a program writes as it ends comes a moment after its last answer.
  await new Promise((resolve) => setTimeout(resolve, found ? 300 : 100));
  const lines = await logSince(full, since).catch(() => []);
  set(
    log,
    h("h3", null, "Log of this moment"),
    lines.length === 0
      ? h("p", { className: "hint" }, "Nothing was written.")
      : h("div", { className: "log short", id: "result-log", tabIndex: 0 }, lines.map((line) => h("div", null, h("span", null, line.text)))),
  );
}

async function putIntoQueue(full, { path, headers, body }, place) {
  const answer = await fetch(`/async-function/${encodeURIComponent(full)}${path}`, { method: "POST", headers, body, credentials: "omit" });
  const text = (await answer.text()).slice(0, 1000);
  if (answer.status === 202) {
    set(place, notice("good", "It is in the queue, and on disk", h("p", null, "Call ID ", h("code", null, answer.headers.get("x-call-id") ?? "?"), ". "), h("p", null, h("a", { href: "#/queue" }, "Look at the queue"))));
  } else {
    set(place, notice("bad", `It was not accepted: ${answer.status}`, h("p", null, text)));
  }
}

/** The form, and below it what came of it. */
export function invokeCard(full) {
  const method = h("select", { id: "invoke-method" }, METHODS.map((name) => h("option", null, name)));
  const path = h("input", { id: "invoke-path", className: "mono", value: "/", spellcheck: false, autocomplete: "off" });
  const headers = h("textarea", { id: "invoke-headers", rows: 2, spellcheck: false, placeholder: "content-type: application/json" });
  const body = h("textarea", { id: "invoke-body", rows: 4, spellcheck: false, placeholder: "What the function gets" });
  const go = h("button", { type: "submit", className: "primary", id: "invoke-go" }, "Invoke");
  const later = h("button", { type: "button" }, "Put into the queue");
  const place = h("div", { className: "result", hidden: true, id: "result", ariaLive: "polite" });
  const noBody = () => {
    body.disabled = BODILESS.includes(method.value);
    body.placeholder = body.disabled ? `Browsers send no body with ${method.value}` : "What the function gets";
  };
  method.addEventListener("change", noBody);

  const start = async (act) => {
    place.hidden = false;
    go.disabled = later.disabled = true;
    try {
      const target = path.value.trim();
      const request = { method: method.value, path: target.startsWith("/") ? target : `/${target}`, headers: parseHeaders(headers.value), body: body.value };
      await act(full, request, place);
    } catch (error) {
      set(place, notice("bad", "It was not sent", h("p", null, error.message)));
    }
    go.disabled = later.disabled = false;
  };
  later.addEventListener("click", () => start(putIntoQueue));
  const form = h(
    "form",
    { onsubmit: (event) => { event.preventDefault(); void start(run); } },
    h(
      "div",
      { className: "fields" },
      h("label", { className: "third keep" }, "Method", method),
      h("label", { className: "two-thirds keep" }, "Path and query", path),
      h("label", { className: "half" }, "Headers ", h("span", { className: "hint" }, "one in each line"), headers),
      h("label", { className: "half" }, "Body", body),
      h("div", { className: "actions" }, go, later, h("span", { className: "hint" }, "From the queue it is run later, and tried again if it fails.")),
    ),
  );
  return h("section", { className: "card", id: "invoke" }, h("header", null, h("h2", null, "Invoke")), form, place);
}
