// Elements and words. Text of functions, logs and labels is hostile: it reaches the page through text nodes and attributes
// that hold no code, never as markup; the page's policy forbids the latter in any case.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !["list", "form"].includes(name) && node.namespaceURI !== SVG && name !== "role") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** An element with properties (or attributes, or on…: listeners) and children, of which strings become text. */
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

/** The same for drawings. */
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Replaces what is in a node, unless it is the same text already. */
export function set(node, ...children) {
  const only = children.length === 1 && typeof children[0] === "string" ? children[0] : null;
  if (only !== null && node.childElementCount === 0 && node.textContent === only) return;
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
}

/** Makes the children of `parent` those of `items` in their order, keeping the nodes of those that stay. */
export function keyed(parent, items, keyOf, make) {
  const kept = (parent.kept ??= new Map());
  const wanted = new Set();
  items.forEach((item, index) => {
    const key = keyOf(item);
    wanted.add(key);
    let entry = kept.get(key);
    if (!entry) kept.set(key, (entry = make(item)));
    entry.update(item);
    if (parent.children[index] !== entry.node) parent.insertBefore(entry.node, parent.children[index] ?? null);
  });
  for (const [key, entry] of kept) {
    if (!wanted.has(key)) {
      entry.node.remove();
      kept.delete(key);
    }
  }
}

const integer = new Intl.NumberFormat("en");
export const count = (number) => integer.format(number);

export function bytes(number) {
  if (number === undefined || number === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[at]}`;
}

export function seconds(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return "–";
  const three = (number) => (number >= 100 ? Math.round(number).toString() : number >= 10 ? number.toFixed(1) : number.toFixed(2));
  if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${three(value * 1e3)} ms`;
  if (value < 120) return `${three(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

export function rate(value) {
  if (value === undefined || value === null) return "–";
  return `${value === 0 ? "0" : value < 10 ? value.toFixed(1) : integer.format(Math.round(value))}/s`;
}

export function ago(date) {
  const passed = (Date.now() - date) / 1000;
  if (passed < 5) return "just now";
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
    const number = Math.floor(Math.abs(passed) / length);
    if (number >= 1) {
      const words = `${number} ${unit}${number === 1 ? "" : "s"}`;
      return passed < 0 ? `in ${words}` : `${words} ago`;
    }
  }
  return "now";
}

export const moment = (date) => new Date(date).toLocaleString();

/** A command line to copy. */
export function command(text) {
  const button = h("button", { type: "button", className: "slim", ariaLabel: `Copy: ${text}` }, "Copy");
  const code = h("code", { tabIndex: 0 }, text);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to pages from this machine and to encrypted ones only.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  return h("div", { className: "command" }, code, button);
}

export const pill = (kind, text) => h("span", { className: `pill ${kind}` }, text);

export function notice(kind, title, ...more) {
  const role = kind === "bad" ? "alert" : "status";
  return h("div", { className: `notice ${kind}`, role }, title && h("strong", null, title), more);
}

/** A description list of names and values. */
export const pairs = (entries) =>
  h("dl", { className: "pairs" }, entries.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));

/** Asks before something is done that cannot be undone; `act` may fail, which is told in place. */
export function confirm({ title, text, action, act }) {
  const told = h("div", { role: "alert" });
  const yes = h("button", { type: "button", className: "danger" }, action);
  const no = h("button", { type: "button", autofocus: true }, "Cancel");
  const dialog = h("dialog", { ariaLabel: title }, h("h2", null, title), h("p", null, text), told, h("div", { className: "actions" }, no, yes));
  no.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      set(told, notice("bad", null, error.message));
      yes.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** A table that becomes blocks on a phone. Columns: [title, class]. */
export function table(label, columns, body) {
  const heads = columns.map(([title, kind]) => h("th", { scope: "col", className: kind ?? "" }, title));
  return h("table", { className: "stack", ariaLabel: label }, h("thead", null, h("tr", null, heads)), body);
}

export const cell = (label, properties, ...children) => {
  const node = h("td", properties, ...children);
  node.setAttribute("data-label", label);
  return node;
};
