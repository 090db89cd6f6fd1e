// One message: where it stands and why, every attempt, its bytes, and once more.
import { post, query, read, readText, segment } from "./api.js";
import { atMostEvery, badge, button, count, el, facts, field, form, link, moment, painter, section, table, tell } from "./dom.js";
import { follow } from "./events.js";

const PHASES = [["dns", "DNS"], ["connect", "connect"], ["tls", "TLS"], ["firstByte", "first byte"], ["total", "in all"]];
const REFRESH_MILLISECONDS = 500;
const DELIVERIES = ["Lane", "State", "Attempts", "Due", "Given up at", "Last outcome"];
const ATTEMPTS = ["No.", "Started", "Outcome", "What to do", "Milliseconds", "Where, and the answer"];

export async function showMessage(main, signal, id) {
  const path = `/v1/messages/${segment(id)}`;
  const state = el("div");
  const paint = painter(state, told);
  const refresh = async () => {
    const all = await Promise.all([read(path, signal), read(`${path}/why`, signal), read(`${path}/attempts`, signal)]);
    paint(all);
    return all[0].account;
  };
  const account = await refresh();
  main.append(
    el("h2", { tabindex: "-1" }, "Message ", el("code", {}, id)),
    state,
    section("Once more", again(path, refresh)),
    section("Body", body(path, signal)),
  );
  const soon = atMostEvery(REFRESH_MILLISECONDS, refresh);
  follow(`/v1/events${query({ account })}`, signal, (_, event) => event.id === id && soon(), soon, tell);
}

function told([message, why, { attempts }]) {
  const deliveries = message.deliveries.map((one) => [one.lane, badge(one.state), count(one.attempts), moment(one.due), moment(one.expiresAt), one.lastOutcome ?? "–"]);
  return [
    facts([
      ["Account", link(message.account, "account", message.account)],
      ["Type", message.type ?? "none"],
      ["Ordering key", message.orderingKey ?? "none"],
      ["Accepted", moment(message.acceptedAt)],
      ["Size", `${count(message.size)} bytes`],
      ["SHA-256", el("code", {}, message.sha256)],
    ]),
    section("Why it stands where it stands", el("p", {}, badge(why.state)), el("ul", { class: "why" }, why.reasons.map(reason))),
    section("Deliveries", table("Deliveries", DELIVERIES, deliveries, "None.")),
    section("Attempts", table("Attempts, the first one first", ATTEMPTS, attempts.map(attempt), "None yet.")),
  ];
}

function reason({ code, text, until }) {
  return el("li", { "data-code": code }, text, until && [" (", moment(until), ")"]);
}

function attempt({ number, startedAt, outcome, httpStatus, errorCode, fix, phases, url, excerpt, resent }) {
  const took = PHASES.filter(([name]) => phases[name] != null).map(([name, text]) => el("li", {}, `${text} ${Math.round(phases[name] * 10) / 10}`));
  return [
    count(number), moment(startedAt),
    [el("strong", { "data-kind": errorCode ? "bad" : "good" }, outcome), errorCode ? `: ${errorCode}` : httpStatus && ` (${httpStatus})`],
    fix ?? "–", el("ul", { class: "phases" }, took), [url, resent && " (sent twice: a kept connection had ended)", excerpt && el("pre", {}, excerpt)],
  ];
}

function again(path, refresh) {
  const redeliver = async ({ asNew }) => {
    const sent = await post(`${path}/redeliver`, { asNew: asNew !== undefined });
    await refresh();
    tell(["Sent once more as ", link(sent.id, "message", sent.id), "."], true);
  };
  return form({ class: "line" }, redeliver,
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "asNew" }), "under a new id, so that receivers take it for another message"),
    el("button", {}, "Redeliver"));
}

function body(path, signal) {
  const place = el("div");
  // Only when asked for: it may hold what not everybody who looks should read.
  const load = async () => place.replaceChildren(el("pre", {}, await readText(`${path}/body`, signal)));
  place.append(button("Show it", load));
  return place;
}
