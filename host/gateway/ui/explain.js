// Why an invocation has failed, whose turn it is, and whether trying again helps.

/** Statuses after which the same request may be answered a moment later, whoever gave them. */
const PASSING = [408, 425, 429, 503];

/** What the gateway says with the header x-spore-fault, in words. */
const WHOSE = {
  caller: "The caller has to change something",
  function: "The function has to change",
  platform: "The platform could not do it",
};

/** What is behind a status of the gateway's own. */
function ofGateway(status, line) {
  // What is before the colon is the name of the function.
  const text = line.replace(/^[^:]*: /, "");
  if (status === 404) return "No function has this name in this namespace, or it was removed a moment ago. Look at the list of functions.";
  if (status === 429) return "All instances are busy and too many requests wait already. Allow more replicas, or send fewer at a time.";
  if (status === 503) return "No instance could take the request in time. If this goes on, the log says what starting one has met.";
  if (status === 504) return "The program did not answer within its timeout, and its instance was ended. The log says where it was. Give it more time by the annotation dev.spore.timeout, or more processor time.";
  if (status === 400) return "The body of the request could not be read to its end.";
  if (/memory/.test(text)) return "The instance has used up its memory. Give the function a higher memory limit, or let it use less.";
  if (/exit/.test(text)) return "The program ended instead of answering. A function has to go on running and to answer each request; its last lines are in the log.";
  if (/closed the connection/.test(text)) return "The program took the request and closed the connection without an answer.";
  if (/not HTTP/.test(text)) return "What the program sent back is not HTTP/1.1. Does it listen with that protocol on the port in $PORT?";
  if (/no instance could be started/.test(text)) return "The program could not be started. Its log says how far it came; the usual reasons are a wrong port, a missing file and too little memory.";
  return "The instance ended while it worked on this request: a crash. Only this instance is gone, and the next request gets another. The log has the place and the nearest symbol.";
}

/**
 * Explains an outcome: { kind: "good" | "warn" | "bad", title, text, whose, retry }, or null where there is nothing to explain.
 * `isGateways` says whether the answer is the gateway's own, `fault` whose fault it names.
 */
export function explain({ status, isGateways, fault, retryAfter, text }) {
  if (!isGateways && status < 400) return null;
  const line = text.trim().slice(0, 1000);
  if (isGateways) {
    const helps = retryAfter !== null || PASSING.includes(status);
    return {
      kind: "bad",
      title: line || `The gateway answered ${status}`,
      text: ofGateway(status, line),
      whose: WHOSE[fault] ?? WHOSE.platform,
      retry: helps ? `Trying again helps${retryAfter ? `, after ${retryAfter} s` : ", a moment later"}.` : "Trying the same again does not help.",
    };
  }
  const isServers = status >= 500;
  return {
    kind: isServers ? "bad" : "warn",
    title: `The program itself answered ${status}`,
    text: isServers
      ? "The request reached the function, which failed on its own terms and went on running. Its log may say why."
      : "The request reached the function, which finds something wrong with the request: look at its method, path, headers and body.",
    whose: isServers ? WHOSE.function : WHOSE.caller,
    retry: PASSING.includes(status) ? "Trying again later may help." : "Whether trying again helps is for the function to say.",
  };
}

/** No answer came to its end. */
export function explainBroken(hasBegun) {
  return hasBegun
    ? {
        kind: "bad",
        title: "The answer broke off",
        text: "Its beginning arrived, then the function or its instance ended, or it ran past its timeout. The log says which. What came is shown below.",
        whose: WHOSE.function,
        retry: "Trying the same again helps only if the cause has passed.",
      }
    : {
        kind: "bad",
        title: "No answer came",
        text: "The gateway cannot be reached, the connection broke, or the function led this browser to another site, which this page does not follow.",
        whose: WHOSE.platform,
        retry: "Look whether the gateway runs, then try again.",
      };
}
