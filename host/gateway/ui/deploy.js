// Deploys a function from an image, or changes the settings of one.

import * as api from "./api.js";
import { bytes, command, h, notice, set } from "./dom.js";

const MINIMUM = "com.openfaas.scale.min";
const MAXIMUM = "com.openfaas.scale.max";
const TIMEOUT = "dev.spore.timeout";
const SNAPSHOT = "dev.spore.snapshot";
const PER_REQUEST = "dev.spore.isolation-per-request";
const ISOLATION = "dev.spore.isolation";

/** Lines of NAME=VALUE as an object. */
function parseLines(text, what) {
  const object = {};
  for (const line of text.split("\n").filter((one) => one.trim() !== "")) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`“${line}” is not ${what}: write it as NAME=VALUE`);
    object[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return object;
}

const asLines = (object, without = []) =>
  Object.entries(object ?? {})
    .filter(([name]) => !without.includes(name))
    .map(([name, value]) => `${name}=${value}`)
    .join("\n");

/** What says how a function is deployed from the values of the form. */
function deploymentOf(fields, chosenSecrets, before) {
  const labels = parseLines(fields.labels.value, "a label");
  const annotations = parseLines(fields.annotations.value, "an annotation");
  const put = (object, name, value) => {
    if (value !== "" && value !== false) object[name] = String(value);
  };
  put(labels, MINIMUM, fields.minimum.value);
  put(labels, MAXIMUM, fields.maximum.value);
  put(annotations, TIMEOUT, fields.timeout.value.trim());
  put(annotations, SNAPSHOT, fields.snapshot.checked);
  put(annotations, PER_REQUEST, fields.perRequest.checked);
  put(annotations, ISOLATION, fields.isolation.value);
  const limits = {};
  put(limits, "memory", fields.memory.value.trim());
  put(limits, "cpu", fields.cpu.value.trim());
  return {
    // What the form does not show stays as it was.
    envProcess: before?.envProcess,
    constraints: before?.constraints,
    requests: before?.requests,
    readOnlyRootFilesystem: before?.readOnlyRootFilesystem,
    service: fields.name.value.trim(),
    namespace: fields.namespace.value,
    image: fields.image.value.trim(),
    envVars: parseLines(fields.environment.value, "a variable"),
    secrets: chosenSecrets(),
    labels,
    annotations,
    limits: Object.keys(limits).length > 0 ? limits : undefined,
  };
}

function makeFields(image) {
  const input = (id, properties) => h("input", { id, autocomplete: "off", spellcheck: false, ...properties });
  return {
    image: input("deploy-image", { required: true, value: image ?? "", placeholder: "registry.example.com/team/hello:1.0", className: "mono" }),
    name: input("deploy-name", { required: true, pattern: "[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?", maxLength: 63, title: "1 to 63 lower-case letters, digits and dashes, with a letter or digit first and last", placeholder: "hello" }),
    namespace: h("select", { id: "deploy-namespace" }, h("option", null, "openfaas-fn")),
    memory: input("deploy-memory", { placeholder: "128Mi" }),
    cpu: input("deploy-cpu", { placeholder: "1" }),
    timeout: input("deploy-timeout", { placeholder: "60s" }),
    minimum: input("deploy-minimum", { type: "number", min: 0, placeholder: "0" }),
    maximum: input("deploy-maximum", { type: "number", min: 1, placeholder: "20" }),
    isolation: h("select", { id: "deploy-isolation" }, h("option", { value: "" }, "as the gateway chooses"), h("option", { value: "vm" }, "virtual machine"), h("option", { value: "process" }, "process")),
    snapshot: h("input", { type: "checkbox", id: "deploy-snapshot" }),
    perRequest: h("input", { type: "checkbox", id: "deploy-per-request" }),
    environment: h("textarea", { id: "deploy-environment", rows: 3, spellcheck: false, placeholder: "LEVEL=info" }),
    labels: h("textarea", { id: "deploy-labels", rows: 3, spellcheck: false, placeholder: "team=web" }),
    annotations: h("textarea", { id: "deploy-annotations", rows: 3, spellcheck: false, placeholder: "dev.spore.idle-timeout=5m" }),
  };
}

function fillIn(fields, entry) {
  fields.image.value = entry.image;
  fields.name.value = entry.name;
  fields.name.readOnly = true;
  fields.namespace.replaceChildren(h("option", null, entry.namespace));
  fields.memory.value = entry.limits?.memory ?? "";
  fields.cpu.value = entry.limits?.cpu ?? "";
  fields.timeout.value = entry.annotations[TIMEOUT] ?? "";
  fields.minimum.value = entry.labels[MINIMUM] ?? "";
  fields.maximum.value = entry.labels[MAXIMUM] ?? "";
  fields.isolation.value = entry.annotations[ISOLATION] ?? "";
  fields.snapshot.checked = entry.annotations[SNAPSHOT] === "true";
  fields.perRequest.checked = entry.annotations[PER_REQUEST] === "true";
  fields.environment.value = asLines(entry.envVars);
  fields.labels.value = asLines(entry.labels, [MINIMUM, MAXIMUM, "faas_function"]);
  fields.annotations.value = asLines(entry.annotations, [TIMEOUT, SNAPSHOT, PER_REQUEST, ISOLATION]);
}

/** The last part of an image's name, as far as a function may be called so. */
function suggestion(image) {
  const last = image.split("@")[0].split("/").pop().split(":")[0].toLowerCase();
  return last.replace(/[^a-z0-9-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
}

export function deploy({ parameters: [full], query, signal }) {
  const fields = makeFields(query.get("image"));
  const known = h("datalist", { id: "known-images" });
  fields.image.setAttribute("list", "known-images");
  const secrets = h("div", null, h("p", { className: "hint" }, "There are none in this namespace."));
  const told = h("div", { ariaLive: "polite" });
  const go = h("button", { type: "submit", className: "primary", id: "deploy-go" }, full ? "Replace the function" : "Deploy");
  let before = null;
  let isNameOwn = Boolean(full);
  fields.name.addEventListener("input", () => (isNameOwn = fields.name.value !== ""));
  const suggest = () => {
    if (!isNameOwn) fields.name.value = suggestion(fields.image.value);
  };
  fields.image.addEventListener("input", suggest);
  suggest();

  const showSecrets = async () => {
    const list = await api.get(`/system/secrets?namespace=${encodeURIComponent(fields.namespace.value)}`, signal).catch(() => []);
    const used = before?.secrets ?? [];
    if (list.length > 0) {
      set(secrets, list.map(({ name }) => h("label", { className: "check" }, h("input", { type: "checkbox", value: name, checked: used.includes(name) }), h("code", null, name))));
    } else set(secrets, h("p", { className: "hint" }, "There are none in this namespace."));
  };
  const chosenSecrets = () => [...secrets.querySelectorAll("input:checked")].map((box) => box.value);
  fields.namespace.addEventListener("change", showSecrets);

  void (async () => {
    try {
      if (full) {
        before = await api.get(api.path(full), signal);
        fillIn(fields, before);
      } else {
        const names = await api.namespaces(signal);
        fields.namespace.replaceChildren(...names.map((name) => h("option", { selected: name === "openfaas-fn" }, name)));
      }
      await showSecrets();
      const images = await api.get("/system/images", signal);
      known.replaceChildren(...images.flatMap((image) => image.names).slice(0, 200).map((name) => h("option", { value: name })));
    } catch (error) {
      if (!signal.aborted) set(told, notice("bad", "The form could not be filled in", h("p", null, error.message)));
    }
  })();

  async function submit() {
    const deployment = deploymentOf(fields, chosenSecrets, before);
    const progress = h("progress", { ariaLabel: "Progress of the download" });
    const words = h("p", null, "Looking for the image …");
    set(told, notice("", null, words, progress));
    await api.pull(
      deployment.image,
      true,
      (done, total) => {
        if (total > 0) {
          progress.max = total;
          progress.value = done;
        }
        set(words, done > 0 ? `Pulling ${deployment.image}: ${bytes(done)}${total > done ? ` of ${bytes(total)}` : ""}` : "Looking for the image …");
      },
      signal,
    );
    progress.removeAttribute("value");
    set(words, "Unpacking the image and deploying the function …");
    await (full ? api.put : api.post)("/system/functions", deployment, signal);
    location.hash = `#/function/${encodeURIComponent(`${deployment.service}.${deployment.namespace}`)}`;
  }

  const failed = (error) => {
    const exists = error.status === 409 && !full;
    const other = `${fields.name.value.trim()}.${fields.namespace.value}`;
    set(
      told,
      notice(
        "bad",
        full ? "It was not changed" : "It was not deployed",
        h("p", null, error.message),
        exists && h("p", null, h("a", { href: `#/edit/${encodeURIComponent(other)}` }, "Change that function instead")),
      ),
    );
    told.scrollIntoView({ block: "nearest" });
  };
  const onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await submit();
    } catch (error) {
      if (!signal.aborted) failed(error);
    }
    go.disabled = false;
  };

  const hint = (text) => h("span", { className: "hint" }, text);
  const form = h(
    "form",
    { onsubmit, noValidate: false },
    h(
      "section",
      { className: "card" },
      h(
        "div",
        { className: "fields" },
        h("label", null, "Image ", hint("stored here, or pulled from its registry"), fields.image, known),
        h("label", { className: "half" }, "Name", fields.name),
        h("label", { className: "half" }, "Namespace", fields.namespace),
        h("label", { className: "third keep" }, "Memory", fields.memory),
        h("label", { className: "third keep" }, "CPU", fields.cpu),
        h("label", { className: "third keep" }, "Timeout", fields.timeout),
      ),
    ),
    h(
      "section",
      { className: "card" },
      h("header", null, h("h2", null, "Replicas and isolation")),
      h(
        "div",
        { className: "fields" },
        h("label", { className: "third keep" }, "At least", fields.minimum),
        h("label", { className: "third keep" }, "At most", fields.maximum),
        h("label", { className: "third" }, "Isolation", fields.isolation),
        h("label", { className: "check" }, fields.snapshot, "Start instances as copies of a snapshot (faster cold starts)"),
        h("label", { className: "check" }, fields.perRequest, "A pristine instance for each invocation"),
      ),
    ),
    h(
      "section",
      { className: "card" },
      h("header", null, h("h2", null, "Environment, secrets, labels")),
      h(
        "div",
        { className: "fields" },
        h("label", { className: "half" }, "Environment ", hint("NAME=VALUE in each line"), fields.environment),
        h("fieldset", { className: "half" }, h("legend", null, "Secrets"), secrets),
        h("label", { className: "half" }, "Labels ", hint("NAME=VALUE in each line"), fields.labels),
        h("label", { className: "half" }, "Annotations ", hint("NAME=VALUE in each line"), fields.annotations),
      ),
    ),
    told,
    h("div", { className: "actions" }, go, h("a", { className: "button", href: full ? `#/function/${encodeURIComponent(full)}` : "#/" }, "Cancel")),
  );
  const title = full ? `Change ${api.shortName(full)}` : "Deploy from an image";
  const sub = full ? "New invocations find the new version as soon as it is accepted; those under way finish with the old one." : "An image is a program that serves HTTP, with what it needs. Any OCI image of a Linux server will do.";
  return [
    h("div", { className: "page-head" }, h("div", null, h("h1", null, title), h("p", { className: "sub" }, sub))),
    form,
    !full && h("details", { className: "card spaced" }, h("summary", null, "From a folder instead"), h("p", { className: "muted" }, "The command line builds a folder of C, Python, Node, Go or Rust, pushes it here and deploys it:"), command("spore new hello --lang python && spore deploy hello")),
  ];
}
