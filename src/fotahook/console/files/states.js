// The states of accounts and deliveries, in words and colours.
import { duration, time } from "./clock.js";
import { chip, plural } from "./dom.js";

const SERIOUS_SECONDS = 600;

export const isFailing = ({ lane }) => lane.failures > 0 && ["open", "waiting"].includes(lane.state);

const ageOf = ({ backlog }) => (backlog.oldestAcceptedAt ? (Date.now() - Date.parse(backlog.oldestAcceptedAt)) / 1000 : 0);

// How serious an account's state is: "bad" for a failing endpoint, or messages that wait long; "warn" for what waits by intent.
export function severity(account) {
  const { lane, backlog } = account;
  if (isFailing(account)) return "bad";
  if (lane.state === "waiting" || lane.reason === "http_410") return "bad";
  if (lane.state === "held") return backlog.pending ? (ageOf(account) > SERIOUS_SECONDS ? "bad" : "warn") : "";
  if (lane.state === "paused") return "warn";
  return backlog.dead ? "warn" : "ok";
}

export function stateOf(account) {
  const { lane, backlog } = account;
  const text = () => {
    const age = ageOf(account);
    if (isFailing(account) || lane.state === "waiting") return age ? `failing ${duration(age < 60 ? age : Math.floor(age / 60) * 60)}` : "failing";
    if (lane.state === "held") return backlog.pending ? "no callback, messages wait" : "no callback";
    if (lane.state === "paused") return lane.reason === "http_410" ? "paused by 410 Gone" : "paused";
    return backlog.dead ? `delivering, ${backlog.dead} dead` : "delivering";
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
  if (errorCode) return chip(errorCode.replaceAll("_", " "), "bad");
  return chip(httpStatus ? `${outcome} ${httpStatus}` : outcome, "ok");
}

const TITLES = {
  dns_error: "The receiver's host name does not resolve",
  connection_refused: "Nothing listens on the receiver's port",
  connection_failed: "The receiver cannot be reached",
  connection_lost: "The receiver closes the connection before it answers",
  tls_untrusted: "The receiver's certificate is not trusted",
  tls_expired: "The receiver's certificate has expired",
  tls_wrong_host: "The receiver's certificate is for another host name",
  tls_failed: "No TLS connection to the receiver can be agreed on",
  tls_client_certificate: "The receiver demands a client certificate",
  proxy_refused: "The egress proxy refuses the connection",
  timeout_connect: "The receiver does not accept connections in time",
  timeout_response: "The receiver does not answer in time",
  response_too_slow: "The receiver's answer does not end in time",
  response_invalid: "The receiver's answer is not HTTP",
  response_cut_off: "The receiver's answer breaks off",
  blocked_address: "The receiver's address may not be delivered to",
  url_invalid: "The callback URL cannot be used",
  redirect: "The receiver redirects, and redirects are not followed",
  http_410: "The receiver says that it is gone for good",
  handler_error: "A handler raised an exception",
  handler_timeout: "A handler did not return in time",
};

export const failureTitle = (code) => TITLES[code] ?? (code?.startsWith("http_") ? `The receiver answers ${code.slice(5)}` : `Delivery fails: ${code ?? "see the attempts"}`);

export const pendingText = (backlog) => (backlog.pending ? `nothing is lost: ${plural(backlog.pending, "message")} wait${backlog.pending === 1 ? "s" : ""}` : "nothing waits");

export const nextTry = (until) => (until ? time(until, "until") : "soon");
