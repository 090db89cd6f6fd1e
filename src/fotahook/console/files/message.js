// One message: its status once, its attempts, its body, and redelivery.
import { post, read, readText, segment } from "./api.js";
import { scaleOf, waterfall } from "./charts.js";
import { milliseconds, time } from "./clock.js";
import { button, code, copy, count, el, heading, link, muted, notify, pairs, panel, paragraph, row, table } from "./dom.js";
import { deliveryState, outcomeOf } from "./states.js";

const COLUMNS = [["#"], ["When"], ["Result"], ["DNS · connect · TLS · first byte", "wide"], ["ms", "n"]];
const SECRET_NOTE = "The signature is not part of it: fotahook makes one for each attempt.";

export async function showMessage(context, id) {
  const { signal } = context;
  const path = `/v1/messages/${segment(id)}`;
  let body = null;
  const load = async () => {
    const [message, why, { attempts }] = await Promise.all([read(path, signal), read(`${path}/why`, signal), read(`${path}/attempts`, signal)]);
    return { message, why, attempts, body };
  };
  const show = async () => {
    body = await readText(`${path}/body`, signal);
    await context.refresh();
  };
  const redeliver = (asNew) => async () => {
    const sent = await post(`${path}/redeliver`, { asNew });
    await context.refresh();
    notify(sent.id === id ? "Redelivered." : ["Redelivered as ", link(sent.id, "message", sent.id), "."], true);
  };
  const curl = async () => copy(command(await read(path, signal), await lastAttempt(path, signal), await readText(`${path}/body`, signal)), "The command");
  return { load, make: (loaded) => draw(id, loaded, { context, show, redeliver, curl }), wants: (_, event) => event.id === id };
}

function draw(id, { message, why, attempts, body }, { context, show, redeliver, curl }) {
  const isPending = why.state === "pending";
  const canRead = context.can("bodies");
  return [
    row(heading(el("span", { class: "name" }, message.type ?? "Message"), " ", deliveryState(message.deliveries[0])), el("span", { class: "space" }),
      button("Copy id", () => copy(id, "The id")), canRead && button("Copy as curl", curl),
      context.can("operate") && !isPending && [button("Redeliver", redeliver(false), { class: "primary" }), button("Redeliver as new", redeliver(true), { title: "With a new id, so that receivers take it for another message" })]),
    el("section", { class: `panel ${why.state === "dead" || attempts.at(-1)?.errorCode ? "trouble" : why.state === "delivered" ? "fine" : ""}` },
      el("ul", { class: "why" }, why.reasons.map(({ code: name, text, until }) => el("li", { "data-code": name }, text, until && [" (", time(until, "until"), ")"])))),
    panel("Attempts", attemptTable(message, attempts)),
    panel("Body", canRead ? bodyOf(body, show) : paragraph(muted("This client may not read bodies: it needs the scope bodies."))),
    panel("Facts",
      pairs([
        ["id", code(id)], ["account", link(message.account, "account", message.account)],
        ["ordering key", message.orderingKey ?? "none"], ["accepted", time(message.acceptedAt), muted(" · "), time(message.acceptedAt, "exact")],
        ...message.deliveries.map((one) => [one.lane === message.account ? "delivery" : `to ${one.lane}`, deliveryState(one), one.due && [" due ", time(one.due, "until")], one.expiresAt && [", expires ", time(one.expiresAt, "until")]]),
      ]),
      el("details", { "data-key": "technical" }, el("summary", {}, "Technical facts"), pairs([["size", `${count(message.size)} bytes`], ["SHA-256", code(message.sha256)]]))),
  ];
}

function attemptTable(message, attempts) {
  const scale = scaleOf(attempts);
  const lines = attempts.toReversed().map((one) => ({
    key: String(one.number),
    cells: [count(one.number), time(one.startedAt), result(message, one, one === attempts.at(-1)), waterfall(one.phases, scale), one.phases.total == null ? "–" : milliseconds(one.phases.total)],
  }));
  return table("Attempts, newest first", COLUMNS, lines, "No attempts yet.");
}

function result(message, one, isLast) {
  const headers = one.url && [`POST ${one.url}`, ...sentHeaders(message, one), "webhook-signature: made for each attempt, and not kept"].join("\n");
  return [outcomeOf(one), one.resent && muted(" sent twice: a reused connection was closed"), one.fix && el("p", { class: "fix" }, one.fix),
    (headers || one.excerpt) && el("details", { "data-key": `attempt-${one.number}`, open: isLast && Boolean(one.errorCode) }, el("summary", {}, "Request and answer"), headers && el("pre", {}, headers), el("pre", {}, one.httpStatus ? `HTTP ${one.httpStatus}\n${one.excerpt ?? ""}` : (one.excerpt ?? "no answer")))];
}

function bodyOf(text, show) {
  if (text === null) return row(button("Show body", show), muted("It may hold what not everybody who sees the page should read."));
  return [el("pre", { class: "body" }, pretty(text)),
    el("details", { "data-key": "raw" }, el("summary", {}, "Raw, byte for byte"), el("pre", {}, text)), row(button("Copy body", () => copy(text, "The body")))];
}

function pretty(text) {
  try {
    // Numbers that JavaScript cannot hold stay as they are sent.
    return /\d{16}/.test(text.replace(/"(?:[^"\\]|\\.)*"/g, "")) ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const sentHeaders = ({ id, account }, { number, startedAt }) => [
  "Content-Type: application/json", `webhook-id: ${id}`, `webhook-timestamp: ${Math.floor(Date.parse(startedAt) / 1000)}`,
  `Fotahook-Account: ${account}`, `Fotahook-Attempt: ${number}`,
];

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function lastAttempt(path, signal) {
  const { attempts } = await read(`${path}/attempts`, signal);
  return attempts.at(-1) ?? { url: "https://receiver.example.net/", number: 1, startedAt: new Date().toISOString() };
}

function command(message, attempt, body) {
  return [`# ${SECRET_NOTE}`, `curl ${quoted(attempt.url)}`, ...sentHeaders(message, attempt).map((one) => `  -H ${quoted(one)}`), `  --data-binary ${quoted(body)}`].join(" \\\n").replace(" \\\n", "\n");
}
