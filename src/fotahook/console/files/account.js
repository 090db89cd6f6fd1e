// One account: its lane, callback, backlog and messages, and what an operator can change.
import { patch, post, query, read, segment } from "./api.js";
import { atMostEvery, badge, button, count, details, el, field, form, link, notify, pages, renderer, section, select, table, time } from "./dom.js";
import { liveList } from "./live.js";

const HEADER = ["Message", "Type", "Key", "State", "Attempts", "Last outcome", "Accepted"];
const STATES = [["", "any"], ["pending", "pending"], ["delivered", "delivered"], ["dead", "dead"]];
const LANE = {
  open: "Messages are sent as they arrive.",
  waiting: "The endpoint is failing. Delivery is retried automatically; no message is lost.",
  held: "No callback is registered. Messages are kept until one is.",
  paused: "Delivery is paused until it is resumed. Messages are kept.",
};
const REFRESH_MILLISECONDS = 1000;
const USUAL_NAME = /^[0-9]{10}-[0-9]{5}$/;

export async function showAccount(main, signal, name) {
  const path = `/v1/accounts/${segment(name)}`;
  const account = await read(path, signal);
  const heading = [el("h2", { tabindex: "-1" }, name), !USUAL_NAME.test(name) && warning()];
  if (!account.known) return main.append(...heading.filter(Boolean), unknown());
  const state = el("div");
  const found = el("div");
  const render = renderer(state, (account) => content(path, account, refresh));
  let reload = async () => {};
  const find = async (given) => (reload = await pages(found, (cursor) => load(path, given, cursor, signal), messages));
  const refresh = async () => {
    render(await read(path, signal));
    await reload();
  };
  render(account);
  await find({});
  main.append(
    ...heading.filter(Boolean),
    state,
    section("Messages", filters(find), found),
    section("Redeliver dead messages", redelivery(path, refresh)),
    section("Limits", limits(path, account.limits)),
    history(path, signal),
    section("Live", liveList(name, signal, atMostEvery(REFRESH_MILLISECONDS, refresh))),
  );
}

function warning() {
  return el("p", { class: "warning" }, "Unusual account name: ThingSpace's have ten digits, a dash and five digits. Check it, including its leading zeros.");
}

function unknown() {
  return el("p", { class: "unknown" }, "Unknown account: it never had a callback or a message. Check its name.");
}

function content(path, { callback, lane, backlog }, refresh) {
  const change = (what) => async () => {
    await post(`${path}/${what}`);
    await refresh();
    notify(what === "pause" ? "Paused: nothing is sent until it is resumed." : "Resumed.", true);
  };
  const until = lane.until && [", retry at ", time(lane.until)];
  return [
    el("section", { class: "lane", "data-state": lane.state },
      el("p", {}, badge(lane.state), " ", lane.reason && el("strong", {}, lane.reason), until),
      el("p", {}, LANE[lane.state]),
      el("p", { class: "line" },
        lane.state !== "paused" && button("Pause", change("pause")),
        ["paused", "waiting"].includes(lane.state) && button(lane.state === "paused" ? "Resume" : "Retry now", change("resume"), { class: "first" }))),
    details([
      ["Callback", callback ? callback.url : "none", callback && el("span", { class: "quiet" }, ` revision ${callback.revision}, since `, time(callback.registeredAt))],
      ["Pending", count(backlog.pending), backlog.oldestAcceptedAt && [", the oldest from ", time(backlog.oldestAcceptedAt)]],
      ["Dead", count(backlog.dead)],
      ["Failures in a row", count(lane.failures)],
    ]),
  ];
}

function limits(path, { inFlight, perSecond }) {
  const number = (text) => (text === "" ? null : Number(text));
  const change = async (given) => {
    await patch(path, { limits: { inFlight: number(given.inFlight), perSecond: number(given.perSecond) } });
    notify("Limits changed.", true);
  };
  return form({ class: "line" }, change,
    field("In flight", el("input", { name: "inFlight", type: "number", min: "1", max: "256", value: inFlight ?? "", placeholder: "service default" })),
    field("Per second", el("input", { name: "perSecond", type: "number", min: "0.001", max: "10000", step: "any", value: perSecond ?? "", placeholder: "no limit" })),
    el("button", {}, "Change"));
}

function filters(find) {
  return form({ class: "line", "aria-label": "Filter messages" }, find,
    field("State", select("state", STATES)),
    field("Type", el("input", { name: "type" })),
    field("Ordering key", el("input", { name: "key" })),
    field("Since (UTC)", el("input", { name: "since", type: "datetime-local" })),
    field("Until (UTC)", el("input", { name: "until", type: "datetime-local" })),
    el("button", {}, "Find"));
}

function load(path, { since, until, ...given }, cursor, signal) {
  const span = { since: since && new Date(`${since}Z`).toISOString(), until: until && new Date(`${until}Z`).toISOString() };
  return read(`${path}/messages${query({ ...given, ...span, cursor })}`, signal);
}

function messages(page) {
  const empty = page.cursor ? "No match on this page; try the next one." : "No messages.";
  return table("Messages, newest first", HEADER, page.messages.map(row), empty);
}

function row({ id, type, orderingKey, deliveries, acceptedAt }) {
  const [delivery] = deliveries;
  return [
    link(id, "message", id), type ?? "–", orderingKey ?? "–", delivery ? badge(delivery.state) : "–",
    delivery ? count(delivery.attempts) : "–", delivery?.lastOutcome ?? "–", time(acceptedAt),
  ];
}

// Shows how many messages there are before anything is sent.
function redelivery(path, refresh) {
  const container = el("div");
  const redeliver = (dryRun) => post(`${path}/redeliver`, { state: "dead", dryRun });
  const begin = () => {
    const ask = async () => {
      const found = await redeliver(true);
      if (!found.count) return notify("No dead messages can be redelivered.", true);
      container.replaceChildren(
        el("p", {}, `${count(found.count)} dead ${found.count === 1 ? "message" : "messages"} will be redelivered with the same ids, after those that already wait.`),
        el("p", { class: "line" }, button("Redeliver", send, { class: "first" }), button("Cancel", async () => begin())));
    };
    container.replaceChildren(button("Count", ask));
  };
  const send = async () => {
    const sent = await redeliver(false);
    begin();
    await refresh();
    notify(`${count(sent.count)} ${sent.count === 1 ? "message" : "messages"} redelivered.`, true);
  };
  begin();
  return container;
}

function history(path, signal) {
  const container = el("div");
  const load = async () => {
    const { history: changes } = await read(`${path}/callbacks`, signal);
    const rows = changes.map(({ at, action, url, actor, revision }) => [time(at), action, url ?? "–", actor, count(revision)]);
    container.replaceChildren(table("Callback changes, newest first", ["Time", "Change", "URL", "By", "Revision"], rows, "No callback was ever registered."));
  };
  const opened = (event) => event.target.open && load().catch(notify);
  return el("details", { toggle: opened }, el("summary", {}, "Callback history"), container);
}
