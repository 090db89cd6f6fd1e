// The states of accounts and deliveries, and the errors of attempts, in words and colours.
import { duration, time } from "./clock.js";
import { chip, count, el, paragraph, plural } from "./dom.js";

// Trouble is serious once it lasts, or much waits for it. Before, it may end by itself.
const SERIOUS_SECONDS = { failing: 60, held: 600 };
const SERIOUS_MESSAGES = 100;

export const isFailing = ({ lane }) => lane.state === "waiting" || (lane.state === "open" && lane.failures > 0);

const ageOf = ({ backlog }) =>
  backlog.oldestAcceptedAt ? (Date.now() - Date.parse(backlog.oldestAcceptedAt)) / 1000 : 0;

// How serious an account's state is, by age and amount: "bad", "warn" or "ok"; "" where nothing is expected of it.
export function severity(account) {
  const { lane, backlog } = account;
  const by = (seconds, messages) => (seconds || messages >= SERIOUS_MESSAGES ? "bad" : "warn");
  if (isFailing(account)) return by(ageOf(account) >= SERIOUS_SECONDS.failing, backlog.pending);
  if (lane.reason === "http_410") return "bad";
  if (lane.state === "paused") return "warn";
  if (lane.state === "held" && backlog.pending) return by(ageOf(account) >= SERIOUS_SECONDS.held, backlog.pending);
  if (backlog.dead) return by(false, backlog.dead);
  return lane.state === "held" ? "" : "ok";
}

export function stateOf(account) {
  const { lane, backlog } = account;
  const text = () => {
    const age = ageOf(account);
    if (isFailing(account)) return age ? `failing ${duration(age < 60 ? age : Math.floor(age / 60) * 60)}` : "failing";
    if (lane.state === "held") return backlog.pending ? "no callback, messages wait" : "no callback";
    if (lane.state === "paused") return lane.reason === "http_410" ? "paused by 410 Gone" : "paused";
    return backlog.dead ? `delivering, ${count(backlog.dead)} dead` : "delivering";
  };
  return chip(text(), severity(account));
}

export function deliveryState(delivery) {
  if (!delivery) return "–";
  if (delivery.state === "delivered") return chip("delivered", "ok");
  if (delivery.state === "dead") return chip("dead", "bad");
  return delivery.attempts ? chip(`failed ${delivery.attempts}×`, "bad") : chip("waiting", "warn");
}

export function outcomeOf({ outcome, errorCode, httpStatus }) {
  if (errorCode) return chip(errorText(errorCode), "bad");
  return chip(httpStatus ? `${outcome} ${httpStatus}` : outcome, "ok");
}

// Each error code in few words, and as a sentence.
const ERRORS = {
  dns_error: ["host name unknown", "The receiver's host name does not resolve"],
  connection_refused: ["connection refused", "Nothing listens on the receiver's port"],
  connection_failed: ["unreachable", "The receiver cannot be reached"],
  connection_lost: ["connection lost", "The receiver closes the connection before it answers"],
  tls_untrusted: ["certificate not trusted", "The receiver's certificate is not trusted"],
  tls_expired: ["certificate expired", "The receiver's certificate has expired"],
  tls_wrong_host: ["certificate of another host", "The receiver's certificate is for another host name"],
  tls_failed: ["no TLS", "No TLS connection to the receiver can be agreed on"],
  tls_client_certificate: ["client certificate demanded", "The receiver demands a client certificate"],
  proxy_refused: ["proxy refused", "The egress proxy refuses the connection"],
  timeout_connect: ["no connection in time", "The receiver does not accept connections in time"],
  timeout_response: ["no answer in time", "The receiver does not answer in time"],
  response_too_slow: ["answer too slow", "The receiver's answer does not end in time"],
  response_invalid: ["answer is not HTTP", "The receiver's answer is not HTTP"],
  response_cut_off: ["answer cut off", "The receiver's answer breaks off"],
  blocked_address: ["address blocked", "The receiver's address may not be delivered to"],
  url_invalid: ["URL unusable", "The callback URL cannot be used"],
  redirect: ["redirect", "The receiver redirects, and redirects are not followed"],
  http_410: ["410 gone", "The receiver says that it is gone for good"],
  handler_error: ["handler error", "A handler raised an exception"],
  handler_timeout: ["handler too slow", "A handler did not return in time"],
};
const STATUS_WORDS = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

const answerOf = (code) => {
  const status = code.match(/^http_(\d+)$/)?.[1];
  return status && [status, STATUS_WORDS[status]].filter(Boolean).join(" ");
};

export const errorText = (code) => ERRORS[code]?.[0] ?? answerOf(code)?.toLowerCase() ?? code.replaceAll("_", " ");

export function failureTitle(code) {
  if (!code) return "Delivery fails";
  const answer = answerOf(code);
  return ERRORS[code]?.[1] ?? (answer ? `The receiver answers ${answer}` : `Delivery fails: ${errorText(code)}`);
}

// Why an account needs attention, in few words.
export function causeOf({ lane, backlog }) {
  if (lane.reason) return errorText(lane.reason);
  if (lane.state === "held" && backlog.pending) return "no callback registered";
  return backlog.dead ? `${count(backlog.dead)} given up` : "–";
}

// What becomes of messages that were not delivered.
export function backlogText({ pending, dead }) {
  const waiting = pending ? `${plural(pending, "message")} ${pending === 1 ? "waits" : "wait"}` : "nothing waits";
  return dead
    ? `${waiting}, ${count(dead)} given up until redelivered`
    : pending
      ? `nothing is lost: ${waiting}`
      : waiting;
}

export const nextTry = (until) => (until ? time(until, "until") : "soon");

// The first thing to read on a page: what is the matter, how bad it is ("bad", "warn" or "ok"), and what to do.
export const banner = (kind, title, ...content) =>
  el("section", { class: `panel banner ${kind}` }, paragraph(el("span", { class: "big" }, title)), content);
