// One message: its status, its attempts, its body, and redelivery.
import { post, query, read, readText, segment } from "./api.js";
import { atMostEvery, badge, button, count, details, el, form, link, notify, renderer, section, table, time } from "./dom.js";
import { follow } from "./events.js";

const PHASES = [["dns", "DNS"], ["connect", "connect"], ["tls", "TLS"], ["firstByte", "first byte"], ["total", "total"]];
const REFRESH_MILLISECONDS = 500;
const DELIVERIES = ["Lane", "State", "Attempts", "Due", "Expires", "Last outcome"];
const ATTEMPTS = ["Attempt", "Started", "Outcome", "Fix", "Milliseconds", "URL and response"];

export async function showMessage(main, signal, id) {
  const path = `/v1/messages/${segment(id)}`;
  const state = el("div");
  const render = renderer(state, content);
  const refresh = async () => {
    const all = await Promise.all([read(path, signal), read(`${path}/why`, signal), read(`${path}/attempts`, signal)]);
    render(all);
    return all[0].account;
  };
  const account = await refresh();
  main.append(
    el("h2", { tabindex: "-1" }, "Message ", el("code", {}, id)),
    state,
    section("Redeliver", redelivery(path, refresh)),
    section("Body", body(path, signal)),
  );
  const soon = atMostEvery(REFRESH_MILLISECONDS, refresh);
  follow(`/v1/events${query({ account })}`, signal, (_, event) => event.id === id && soon(), soon, notify);
}

function content([message, why, { attempts }]) {
  const deliveries = message.deliveries.map((one) => [one.lane, badge(one.state), count(one.attempts), time(one.due), time(one.expiresAt), one.lastOutcome ?? "–"]);
  return [
    details([
      ["Account", link(message.account, "account", message.account)],
      ["Type", message.type ?? "none"],
      ["Ordering key", message.orderingKey ?? "none"],
      ["Accepted", time(message.acceptedAt)],
      ["Size", `${count(message.size)} bytes`],
      ["SHA-256", el("code", {}, message.sha256)],
    ]),
    section("Status", el("p", {}, badge(why.state)), el("ul", { class: "why" }, why.reasons.map(reason))),
    section("Deliveries", table("Deliveries", DELIVERIES, deliveries, "No deliveries.")),
    section("Attempts", table("Attempts, oldest first", ATTEMPTS, attempts.map(attempt), "No attempts yet.")),
  ];
}

function reason({ code, text, until }) {
  return el("li", { "data-code": code }, text, until && [" (", time(until), ")"]);
}

function attempt({ number, startedAt, outcome, httpStatus, errorCode, fix, phases, url, excerpt, resent }) {
  const took = PHASES.filter(([name]) => phases[name] != null).map(([name, text]) => el("li", {}, `${text} ${Math.round(phases[name] * 10) / 10}`));
  return [
    count(number), time(startedAt),
    [el("strong", { "data-kind": errorCode ? "bad" : "good" }, outcome), errorCode ? `: ${errorCode}` : httpStatus && ` (${httpStatus})`],
    fix ?? "–", el("ul", { class: "phases" }, took), [url, resent && " (sent twice: a reused connection was closed)", excerpt && el("pre", {}, excerpt)],
  ];
}

function redelivery(path, refresh) {
  const redeliver = async ({ asNew }) => {
    const sent = await post(`${path}/redeliver`, { asNew: asNew !== undefined });
    await refresh();
    notify(["Redelivered as ", link(sent.id, "message", sent.id), "."], true);
  };
  return form({ class: "line" }, redeliver,
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "asNew" }), "with a new id, so that receivers treat it as a new message"),
    el("button", {}, "Redeliver"));
}

function body(path, signal) {
  const container = el("div");
  // Only on demand: it may hold what not everybody who sees the page should read.
  const load = async () => container.replaceChildren(el("pre", {}, await readText(`${path}/body`, signal)));
  container.append(button("Show body", load));
  return container;
}
