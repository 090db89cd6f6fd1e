// One account: how it is, what waits there, and what an operator may do about it.
import { patch, post, query, read, segment } from "./api.js";
import { atMostEvery, badge, button, count, el, facts, field, form, link, moment, pages, painter, section, select, table, tell } from "./dom.js";
import { liveList } from "./live.js";

const HEADER = ["Message", "Type", "Key", "State", "Attempts", "Last outcome", "Accepted"];
const STATES = [["", "any"], ["pending", "pending"], ["delivered", "delivered"], ["dead", "dead"]];
const LANE = {
  open: "Messages are sent as they come.",
  waiting: "The endpoint is in trouble. It is tried again by itself; nothing is lost meanwhile.",
  held: "No callback is registered. Messages are kept until there is one.",
  paused: "Nothing is sent until somebody resumes. Messages are kept.",
};
const REFRESH_MILLISECONDS = 1000;

export async function showAccount(main, signal, name) {
  const path = `/v1/accounts/${segment(name)}`;
  const state = el("div");
  const found = el("div");
  const paint = painter(state, (account) => told(path, account, refresh));
  let reload = async () => {};
  const find = async (given) => (reload = await pages(found, (cursor) => load(path, given, cursor, signal), messages));
  const refresh = async () => {
    paint(await read(path, signal));
    await reload();
  };
  const account = await read(path, signal);
  paint(account);
  await find({});
  main.append(
    el("h2", { tabindex: "-1" }, name),
    state,
    section("Messages", filters(find), found),
    section("Send dead ones again", redelivery(path, refresh)),
    section("Limits", limits(path, account.limits)),
    history(path, signal),
    section("Live", liveList(name, signal, atMostEvery(REFRESH_MILLISECONDS, refresh))),
  );
}

function told(path, { callback, lane, backlog }, refresh) {
  const steer = (what) => async () => {
    await post(`${path}/${what}`);
    await refresh();
    tell(what === "pause" ? "Paused: nothing is sent until it is resumed." : "Resumed.", true);
  };
  const until = lane.until && [", tried again at ", moment(lane.until)];
  return [
    el("section", { class: "lane", "data-state": lane.state },
      el("p", {}, badge(lane.state), " ", lane.reason && el("strong", {}, lane.reason), until),
      el("p", {}, LANE[lane.state]),
      el("p", { class: "line" },
        lane.state !== "paused" && button("Pause", steer("pause")),
        ["paused", "waiting"].includes(lane.state) && button(lane.state === "paused" ? "Resume" : "Try again now", steer("resume"), { class: "first" }))),
    facts([
      ["Callback", callback ? callback.url : "none", callback && el("span", { class: "quiet" }, ` revision ${callback.revision}, since `, moment(callback.registeredAt))],
      ["Pending", count(backlog.pending), backlog.oldestAcceptedAt && [", the oldest ", moment(backlog.oldestAcceptedAt)]],
      ["Dead", count(backlog.dead)],
      ["Failures in a row", count(lane.failures)],
    ]),
  ];
}

function limits(path, { inFlight, perSecond }) {
  const number = (text) => (text === "" ? null : Number(text));
  const change = async (given) => {
    await patch(path, { limits: { inFlight: number(given.inFlight), perSecond: number(given.perSecond) } });
    tell("The limits are changed.", true);
  };
  return form({ class: "line" }, change,
    field("In flight", el("input", { name: "inFlight", type: "number", min: "1", max: "256", value: inFlight ?? "", placeholder: "no limit" })),
    field("Per second", el("input", { name: "perSecond", type: "number", min: "0.001", max: "10000", step: "any", value: perSecond ?? "", placeholder: "no limit" })),
    el("button", {}, "Change"));
}

function filters(find) {
  return form({ class: "line", "aria-label": "Which messages" }, find,
    field("State", select("state", STATES)),
    field("Type", el("input", { name: "type" })),
    field("Ordering key", el("input", { name: "key" })),
    field("Since", el("input", { name: "since", type: "datetime-local" })),
    field("Until", el("input", { name: "until", type: "datetime-local" })),
    el("button", {}, "Find"));
}

function load(path, { since, until, ...given }, cursor, signal) {
  const span = { since: since && new Date(since).toISOString(), until: until && new Date(until).toISOString() };
  return read(`${path}/messages${query({ ...given, ...span, cursor })}`, signal);
}

function messages(page) {
  const empty = page.cursor ? "None here: look further." : "None.";
  return table("Messages, newest first", HEADER, page.messages.map(row), empty);
}

function row({ id, type, orderingKey, deliveries, acceptedAt }) {
  const [delivery] = deliveries;
  return [
    link(id, "message", id), type ?? "–", orderingKey ?? "–", delivery ? badge(delivery.state) : "–",
    delivery ? count(delivery.attempts) : "–", delivery?.lastOutcome ?? "–", moment(acceptedAt),
  ];
}

// Nothing is sent before it was said how many there are.
function redelivery(path, refresh) {
  const place = el("div");
  const again = (dryRun) => post(`${path}/redeliver`, { state: "dead", dryRun });
  const begin = () => {
    const ask = async () => {
      const found = await again(true);
      if (!found.count) return tell("There are no dead messages whose bytes are kept.", true);
      place.replaceChildren(
        el("p", {}, `${count(found.count)} dead ${found.count === 1 ? "message goes" : "messages go"} to the tail of the lane, with the same ids.`),
        el("p", { class: "line" }, button("Send them", send, { class: "first" }), button("Leave them", async () => begin())));
    };
    place.replaceChildren(button("Count them", ask));
  };
  const send = async () => {
    const sent = await again(false);
    begin();
    await refresh();
    tell(`${count(sent.count)} sent once more.`, true);
  };
  begin();
  return place;
}

function history(path, signal) {
  const place = el("div");
  const load = async () => {
    const { history: changes } = await read(`${path}/callbacks`, signal);
    const rows = changes.map(({ at, action, url, actor, revision }) => [moment(at), action, url ?? "–", actor, count(revision)]);
    place.replaceChildren(table("Changes of the callback, newest first", ["When", "What", "URL", "By", "Revision"], rows, "It never had a callback."));
  };
  const opened = (event) => event.target.open && load().catch(tell);
  return el("details", { toggle: opened }, el("summary", {}, "History of the callback"), place);
}
