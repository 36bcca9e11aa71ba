// What is stored: images, names of secrets; and the gateway itself.

import * as api from "./api.js";
import { ago, bytes, cell, command, confirm, count, h, keyed, notice, pairs, pill, set, table } from "./dom.js";

const PAUSE_MS = 5000;

const head = (title, sub, ...actions) => h("div", { className: "page-head" }, h("div", null, h("h1", null, title), h("p", { className: "sub" }, sub)), h("div", { className: "actions" }, actions));

function imageRow(first, refresh, tell) {
  const name = first.names[0] ?? first.digest;
  const others = first.names.slice(1, 6).join(", ");
  const users = h("span");
  const remove = h("button", { type: "button", className: "slim danger" }, "Remove");
  remove.addEventListener("click", () =>
    confirm({
      title: "Remove this image?",
      text: `${name} loses its name, and what only it needs is deleted. An image that a function uses is kept.`,
      action: "Remove it",
      act: async () => {
        const answer = await api.remove(`/system/images?image=${encodeURIComponent(name)}`);
        const { bytes: freed } = await answer.json();
        tell(notice("good", null, `${name} is removed; ${bytes(freed)} are free again.`));
        await refresh();
      },
    }),
  );
  const node = h(
    "tr",
    null,
    cell("", { className: "lead" }, h("div", { className: "name mono" }, name), h("div", { className: "under mono" }, others || first.digest.slice(0, 19))),
    cell("Used by", null, users),
    cell("Size", { className: "right" }, bytes(first.bytes)),
    cell("Made", { className: "nowrap" }, first.created && !first.created.startsWith("1970") ? ago(new Date(first.created)) : "–"),
    cell("", { className: "bare" }, h("div", { className: "actions" }, h("a", { className: "button slim", href: `#/deploy?image=${encodeURIComponent(name)}` }, "Deploy"), remove)),
  );
  return {
    node,
    update: (image) => {
      const links = image.functions.slice(0, 8).map((full, index) => [index > 0 && ", ", h("a", { href: `#/function/${encodeURIComponent(full)}` }, api.shortName(full))]);
      set(users, image.functions.length === 0 ? h("span", { className: "muted" }, "nothing") : h("span", null, links));
    },
  };
}

export function images({ signal, every }) {
  const told = h("div", { ariaLive: "polite" });
  const failed = h("div");
  const body = h("tbody");
  const card = h("section", { className: "card table", hidden: true }, table("Images", [["Image"], ["Used by"], ["Size", "right"], ["Made"], [""]], body));
  const empty = h(
    "div",
    { className: "card empty", hidden: true },
    h("h2", null, "No image is stored"),
    h("p", null, "Pull one above, or push one: this gateway is a registry for docker, skopeo and buildah."),
    command(`skopeo copy --dest-tls-verify=false docker-daemon:hello:latest docker://${location.host}/hello`),
  );
  const refresh = async () => {
    const list = (await api.get("/system/images", signal)).sort((a, b) => (a.names[0] ?? "~").localeCompare(b.names[0] ?? "~"));
    set(failed);
    card.hidden = list.length === 0;
    empty.hidden = list.length > 0;
    keyed(body, list, (image) => image.digest + image.names.join(), (image) => imageRow(image, refresh, (node) => set(told, node)));
  };
  const name = h("input", { className: "mono", required: true, placeholder: "registry.example.com/team/hello:1.0", ariaLabel: "Image to pull", spellcheck: false });
  const go = h("button", { type: "submit" }, "Pull");
  const pull = async (event) => {
    event.preventDefault();
    go.disabled = true;
    const progress = h("progress", { ariaLabel: "Progress of the download" });
    const words = h("p", null, "Asking the registry …");
    set(told, notice("", null, words, progress));
    try {
      const tell = (done, total) => {
        if (total > 0) {
          progress.max = total;
          progress.value = done;
          set(words, `${bytes(done)} of ${bytes(total)}`);
        }
      };
      await api.pull(name.value.trim(), false, tell, signal);
      set(told, notice("good", null, `${name.value.trim()} is here.`));
      await refresh();
    } catch (error) {
      if (!signal.aborted) set(told, notice("bad", "It was not pulled", h("p", null, error.message)));
    }
    go.disabled = false;
  };
  const prune = h("button", { type: "button" }, "Remove unused");
  prune.addEventListener("click", () =>
    confirm({
      title: "Remove what nothing uses?",
      text: "What neither a name nor a function needs any more is deleted from the store.",
      action: "Remove it",
      act: async () => {
        const { bytes: freed } = await (await api.post("/system/images/prune", { unusedForSeconds: 60 })).json();
        set(told, notice("good", null, `${bytes(freed)} are free again.`));
        await refresh();
      },
    }),
  );
  every(PAUSE_MS, refresh, (error) => set(failed, notice("bad", "The images cannot be listed", h("p", null, error.message))));
  return [
    head("Images", "What functions are deployed from.", prune),
    failed,
    h("form", { className: "card", onsubmit: pull }, h("div", { className: "pull" }, name, go)),
    told,
    card,
    empty,
  ];
}

export function secrets({ signal, every }) {
  const failed = h("div");
  const body = h("tbody");
  const card = h("section", { className: "card table", hidden: true }, table("Secrets", [["Name"], ["Namespace"], ["File in the function"]], body));
  const make = () => command("spore secret create db-password < password.txt");
  const empty = h("div", { className: "card empty", hidden: true }, h("h2", null, "No secret is stored"), h("p", null, "A secret is a read-only file of the functions that name it. Its value is never shown, here or elsewhere. Make one with the command line:"), make());
  const row = ({ name, namespace }) => ({
    node: h("tr", null, cell("", { className: "lead" }, h("span", { className: "name mono" }, name)), cell("Namespace", null, namespace), cell("File", null, h("code", null, `/var/openfaas/secrets/${name}`))),
    update: () => {},
  });
  every(
    PAUSE_MS,
    async () => {
      const names = await api.namespaces(signal);
      const list = (await Promise.all(names.map((name) => api.get(`/system/secrets?namespace=${encodeURIComponent(name)}`, signal)))).flat();
      set(failed);
      card.hidden = list.length === 0;
      more.hidden = list.length === 0;
      empty.hidden = list.length > 0;
      keyed(body, list, api.key, row);
    },
    (error) => set(failed, notice("bad", "The secrets cannot be listed", h("p", null, error.message))),
  );
  const more = h("section", { className: "card", hidden: true }, h("header", null, h("h2", null, "Make another one")), make());
  return [head("Secrets", "Names only: no value ever leaves the gateway."), failed, card, empty, more];
}

export function system({ signal, every }) {
  const failed = h("div");
  const about = h("div", null, h("p", { className: "muted" }, "Loading …"));
  const layers = h("div");
  const spaces = h("tbody");
  const row = ({ name }) => {
    const number = h("span");
    return {
      node: h("tr", null, cell("", { className: "lead" }, h("span", { className: "name" }, name)), cell("Functions", { className: "right" }, number)),
      update: ({ functions }) => set(number, count(functions)),
    };
  };
  every(
    PAUSE_MS,
    async () => {
      const [info, functions, names, metrics] = await Promise.all([api.get("/system/info", signal), api.functions(signal), api.namespaces(signal), api.text("/metrics", signal)]);
      const samples = api.parseMetrics(metrics);
      const metric = (name) => samples.find((sample) => sample.name === name)?.value;
      set(failed);
      set(
        about,
        pairs([
          ["Version", `${info.version.release} (${info.version.sha})`],
          ["Sandbox", info.provider.orchestration],
          ["Isolation", info.isolation === "vm" ? "virtual machines" : info.isolation === "process" ? "processes: KVM cannot be used here" : "none can be had here"],
          ["Architecture", info.arch],
          ["Memory of the daemon", bytes(metric("process_resident_memory_bytes"))],
          ["Open descriptors", count(metric("process_open_fds") ?? 0)],
          ["API", h("span", null, h("a", { href: "/metrics" }, "metrics"), ", ", h("a", { href: "/system/info" }, "info"))],
        ]),
      );
      set(layers, info.layers.length === 0 ? h("p", { className: "muted" }, "Nothing is known of them.") : pairs(info.layers.map((layer) => [layer.name, layer.active ? pill("good", "active") : h("span", null, pill("warn", "missing"), " ", layer.reason ?? "")])));
      keyed(spaces, names.map((name) => ({ name, functions: functions.filter((entry) => entry.namespace === name).length })), (entry) => entry.name, row);
    },
    (error) => set(failed, notice("bad", "The gateway says nothing of itself", h("p", null, error.message))),
  );
  return [
    head("System", location.host),
    failed,
    h("div", { className: "grid" }, h("section", { className: "card" }, h("header", null, h("h2", null, "Gateway")), about), h("section", { className: "card" }, h("header", null, h("h2", null, "What keeps instances apart")), layers)),
    h("section", { className: "card table" }, h("header", null, h("h2", null, "Namespaces")), table("Namespaces", [["Name"], ["Functions", "right"]], spaces)),
    h("section", { className: "card" }, h("header", null, h("h2", null, "Make another namespace")), command(`curl -X POST -d '{"name":"team"}' ${location.origin}/system/namespace/`)),
  ];
}
