// What happens, as it happens.
import { query } from "./api.js";
import { count, el, fromNow, link, moment } from "./dom.js";
import { follow } from "./events.js";

const KEPT = 200;

const SAID = {
  "message.accepted": (told) => ["accepted ", message(told), told.type && ` ${told.type}`, `, ${count(told.size)} bytes`],
  "attempt.finished": (told) => ["attempt ", `${told.number} at `, message(told), `: ${told.errorCode ?? told.outcome}`, told.milliseconds != null && ` after ${Math.round(told.milliseconds)} ms`],
  "message.dead": (told) => ["gave up ", message(told), told.errorCode && `: ${told.errorCode}`],
  "lane.changed": (told) => [`lane is now ${told.state}`, told.reason && `: ${told.reason}`, told.until && `, tried again ${fromNow(told.until)}`],
  "callback.changed": (told) => [`callback ${told.action} by ${told.actor}`, told.url && `: ${told.url}`],
};

const message = (told) => link(told.id, "message", told.id);

// A list that grows at its top, for all accounts or one.
export function liveList(account, signal, onEvent = () => {}) {
  const state = el("p", { class: "quiet", "data-live": true }, "Connecting.");
  const list = el("ol", { class: "live", "aria-label": "Events, the newest first" });
  const seen = (name, told) => {
    const said = SAID[name]?.(told) ?? [name];
    const kind = name === "message.dead" || told.errorCode ? "bad" : told.state === "delivered" ? "good" : "";
    const whose = account === null && [link(told.account, "account", told.account), ": "];
    list.prepend(el("li", { "data-kind": kind, "data-event": name }, moment(told.at), " ", whose, said));
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
    onEvent(name);
  };
  const connected = () => {
    state.textContent = "Connected: what happens shows up here.";
    // What happened before was not heard.
    onEvent();
  };
  follow(`/v1/events${query({ account })}`, signal, seen, connected, (text) => (state.textContent = text));
  return [state, list];
}

export function showLive(main, signal) {
  main.append(el("h2", { tabindex: "-1" }, "Live"), el("p", { class: "quiet" }, "What happens from now on, in all accounts of this client."));
  main.append(...liveList(null, signal));
}
