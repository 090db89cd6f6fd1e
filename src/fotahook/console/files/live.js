// The live list of events.
import { query } from "./api.js";
import { count, el, link, time } from "./dom.js";
import { follow } from "./events.js";

const KEPT = 200;

const TEXTS = {
  "message.accepted": (event) => ["accepted ", message(event), event.type && ` ${event.type}`, `, ${count(event.size)} bytes`],
  "attempt.finished": (event) => ["attempt ", `${event.number} at `, message(event), `: ${event.errorCode ?? event.outcome}`, event.milliseconds != null && ` after ${Math.round(event.milliseconds)} ms`],
  "message.dead": (event) => ["dead: ", message(event), event.errorCode && `, ${event.errorCode}`],
  "lane.changed": (event) => [`lane ${event.state}`, event.reason && `: ${event.reason}`, event.until && [", retry at ", time(event.until)]],
  "callback.changed": (event) => [`callback ${event.action} by ${event.actor}`, event.url && `: ${event.url}`],
};

const message = (event) => link(event.id, "message", event.id);

// Events of one account, or of all, newest first.
export function liveList(account, signal, onEvent = () => {}) {
  const state = el("p", { class: "quiet", "data-live": true }, "Connecting…");
  const list = el("ol", { class: "live", "aria-label": "Events, newest first" });
  const add = (name, event) => {
    const text = TEXTS[name]?.(event) ?? [name];
    const kind = name === "message.dead" || event.errorCode ? "bad" : event.state === "delivered" ? "good" : "";
    const owner = account === null && [link(event.account, "account", event.account), ": "];
    list.prepend(el("li", { "data-kind": kind, "data-event": name }, time(event.at), " ", owner, text));
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
    onEvent(name);
  };
  const connected = () => {
    state.textContent = "Connected: new events appear here.";
    // Events before the connection were not received.
    onEvent();
  };
  follow(`/v1/events${query({ account })}`, signal, add, connected, (text) => (state.textContent = text));
  return [state, list];
}

export function showLive(main, signal) {
  main.append(el("h2", { tabindex: "-1" }, "Live"), el("p", { class: "quiet" }, "New events in all accounts of this client."));
  main.append(...liveList(null, signal));
}
