// A function's log as it is written. What is in it is hostile, and shown as text.

import * as api from "./api.js";
import { h, set } from "./dom.js";

/** Lines that are kept in the page. */
const LINES_MAX = 500;
const TAIL = 100;
const AGAIN_MS = 3000;

export function logCard(full, { signal }) {
  const box = h("div", { className: "log", id: "log", tabIndex: 0, role: "log", ariaLabel: `Log of ${full}` });
  const none = h("div", { className: "none" }, h("span", null, "Nothing is written yet. What the program writes to its standard output and error comes here, and what the platform says of its instances."));
  const follow = h("input", { type: "checkbox", checked: true });
  const status = h("span", { className: "hint", role: "status" });
  let waiting = [];
  box.append(none);

  const flush = () => {
    if (waiting.length === 0) return;
    const lines = waiting.slice(-LINES_MAX);
    waiting = [];
    none.remove();
    box.append(
      ...lines.map(({ timestamp, instance, text }) =>
        h("div", { className: instance === "" ? "platform" : "", title: instance ? `instance ${instance}` : "the platform" }, h("time", { dateTime: timestamp }, new Date(timestamp).toLocaleTimeString()), h("span", null, text)),
      ),
    );
    while (box.childElementCount > LINES_MAX) box.firstElementChild.remove();
    if (follow.checked) box.scrollTop = box.scrollHeight;
  };
  const timer = setInterval(flush, 250);
  signal.addEventListener("abort", () => clearInterval(timer));

  void (async () => {
    let options = { tail: String(TAIL), follow: "true" };
    while (!signal.aborted) {
      try {
        for await (const line of api.log(full, options, signal)) {
          waiting.push(line);
          if (waiting.length > LINES_MAX) waiting.shift();
          set(status, "");
          // A connection that breaks goes on behind the last line.
          options = { since: new Date(new Date(line.timestamp).getTime() + 1).toISOString(), follow: "true" };
        }
      } catch (error) {
        if (signal.aborted) return;
        set(status, error.status === 404 ? "there is no such function" : "not connected");
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  })();
  return h("section", { className: "card" }, h("header", null, h("h2", null, "Log"), status, h("label", { className: "check" }, follow, "Follow")), box);
}
