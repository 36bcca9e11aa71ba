// Which page is shown, and how it is kept up to date.

import { h, notice, set } from "./dom.js";
import { overview } from "./overview.js";
import { functionPage } from "./function.js";
import { deploy } from "./deploy.js";
import { queue } from "./queue.js";
import { images, secrets, system } from "./store.js";

const PAGES = [
  [/^\/?$/, overview, "Functions"],
  [/^\/function\/([^/]+)$/, functionPage, null],
  [/^\/deploy$/, deploy, "Deploy"],
  [/^\/edit\/([^/]+)$/, deploy, "Change"],
  [/^\/queue$/, queue, "Queue"],
  [/^\/images$/, images, "Images"],
  [/^\/secrets$/, secrets, "Secrets"],
  [/^\/system$/, system, "System"],
];

const main = document.getElementById("main");
const connection = document.getElementById("connection");
let leave = () => {};

/** What a page gets: a signal that it is left, and a way to repeat something until then. */
function context() {
  const controller = new AbortController();
  const { signal } = controller;
  const endings = [];
  /** Does `work` now and every so many milliseconds, one after the other, while the page can be seen. */
  const every = async (pause, work, failed) => {
    while (!signal.aborted) {
      try {
        if (!document.hidden) {
          await work();
          connection.textContent = "";
        }
      } catch (error) {
        if (signal.aborted) return;
        connection.textContent = error.status === 0 ? "not connected" : "";
        failed?.(error);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  };
  return {
    context: { signal, every, atEnd: (end) => endings.push(end) },
    leave: () => {
      controller.abort();
      endings.forEach((end) => end());
    },
  };
}

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  leave();
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const route = PAGES.map(([form, page, title]) => [form.exec(path), page, title]).find(([found]) => found);
  const made = context();
  leave = made.leave;
  document.querySelectorAll(".top nav a").forEach((link) => {
    const target = link.getAttribute("href").slice(1);
    const isHere = target === path || (target === "/" && (path === "" || path.startsWith("/function/")));
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (!route) {
    set(main, notice("warn", "There is no such page", h("p", null, h("a", { href: "#/" }, "Show all functions"))));
    return;
  }
  const [found, page, title] = route;
  const parameters = found.slice(1).map(safeDecode);
  document.title = `${title ?? parameters[0]} · Spore`;
  set(main, page({ parameters, query: new URLSearchParams(query ?? ""), ...made.context }));
  scrollTo(0, 0);
}

addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
show();
