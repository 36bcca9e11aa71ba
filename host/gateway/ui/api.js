// The gateway's API. Errors are one line of text that says what to do; here they become the message of an exception.

/** An answer that is an error, or none at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const LINE_CHARACTERS_MAX = 64 * 1024;

async function send(method, path, body, signal) {
  const options = { method, signal, cache: "no-store", headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway does not answer: look whether `spore serve` runs, and whether this machine reaches it.");
  }
  if (!answer.ok) {
    const text = (await answer.text()).slice(0, 4000).trim();
    const fallback = answer.status === 401 ? "The gateway asks for a name and a password: load the page again to type them." : `The gateway answered ${answer.status}.`;
    throw new ApiError(answer.status, answer.status === 401 ? fallback : text || fallback, answer.headers.get("retry-after"));
  }
  return answer;
}

export const get = async (path, signal) => (await send("GET", path, undefined, signal)).json();
export const text = async (path, signal) => (await send("GET", path, undefined, signal)).text();
export const post = (path, body, signal) => send("POST", path, body, signal);
export const put = (path, body, signal) => send("PUT", path, body, signal);
export const remove = (path, body, signal) => send("DELETE", path, body, signal);

/** The objects of an answer that has one in each line, as they come. */
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const parts = rest.split("\n");
    rest = done ? "" : parts.pop().slice(-LINE_CHARACTERS_MAX);
    for (const part of parts) {
      if (!part) continue;
      let object;
      try {
        object = JSON.parse(part);
      } catch {
        continue;
      }
      yield object;
    }
    if (done) return;
  }
}

/** A function's log, as lines that are objects. */
export async function* log(name, options, signal) {
  const query = new URLSearchParams({ name, ...options });
  yield* lines(await send("GET", `/system/logs?${query}`, undefined, signal));
}

/** Pulls an image unless it is there; `tell(done, total)` hears how far it is. Gives its digest. */
export async function pull(image, missing, tell, signal) {
  const answer = await post("/system/images/pull", { image, missing }, signal);
  for await (const line of lines(answer)) {
    if (line.error) throw new ApiError(line.status ?? 500, line.error);
    if (line.digest) return line.digest;
    tell(line.doneBytes ?? 0, line.totalBytes ?? 0);
  }
  throw new ApiError(0, "The connection broke before the image was there: try again.");
}

export const namespaces = (signal) => get("/system/namespaces", signal);

/** The functions of all namespaces. */
export async function functions(signal) {
  const names = await namespaces(signal);
  const lists = names.map((name) => get(`/system/functions?namespace=${encodeURIComponent(name)}`, signal));
  return (await Promise.all(lists)).flat().sort((a, b) => a.name.localeCompare(b.name) || a.namespace.localeCompare(b.namespace));
}

/** `NAME.NAMESPACE`, which names a function everywhere. */
export const key = (entry) => `${entry.name}.${entry.namespace}`;
export const shortName = (full) => full.replace(/\.openfaas-fn$/, "");
export const path = (full, rest = "") => `/system/function/${encodeURIComponent(full)}${rest}`;

/** Samples of Prometheus's text format: a list of { name, labels, value }. */
export function parseMetrics(page) {
  const samples = [];
  for (const line of page.split("\n")) {
    const head = /^([A-Za-z_:][\w:]*)/.exec(line);
    if (!head) continue;
    const labels = {};
    let at = head[0].length;
    if (line[at] === "{") {
      const label = /\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?/y;
      label.lastIndex = at + 1;
      for (let found = label.exec(line); found; found = label.exec(line)) {
        labels[found[1]] = found[2].replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
        at = label.lastIndex;
      }
      at = line.indexOf("}", at) + 1;
    }
    const value = Number(line.slice(at).trim().split(" ")[0]);
    if (!Number.isNaN(value)) samples.push({ name: head[1], labels, value });
  }
  return samples;
}
