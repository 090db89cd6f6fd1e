// The live list: the last 200 events, then new ones as they come; kept while other pages are shown.
import { milliseconds, time } from "./clock.js";
import { address, atMostEvery, button, chip, count, el, field, form, heading, input, link, muted, render, row, select, shortId } from "./dom.js";

const KEPT = 200;
const REDRAW_MILLISECONDS = 100;
const KINDS = [["", "every event"], ["message.accepted", "accepted"], ["attempt.finished", "attempts"], ["message.dead", "dead"], ["lane.changed", "lanes"], ["callback.changed", "callbacks"]];

const kept = [];
let redraw = () => {};

const message = ({ id }) => el("a", { href: address("message", id), title: id }, shortId(id));
const LINES = {
  "message.accepted": (event) => [chip("accepted"), message(event), muted(event.type, ` ${count(event.size)} bytes`)],
  "attempt.finished": (event) => [event.errorCode ? chip(event.errorCode.replaceAll("_", " "), "bad") : chip(event.outcome, "ok"), message(event), muted(`attempt ${event.number}`, event.milliseconds != null && ` · ${milliseconds(event.milliseconds)} ms`)],
  "message.dead": (event) => [chip("dead", "bad"), message(event), muted(event.errorCode)],
  "lane.changed": (event) => [chip(`lane ${event.state}`, event.state === "waiting" ? "bad" : event.state === "open" ? "ok" : "warn"), event.reason, event.until && [muted("next try "), time(event.until, "until")]],
  "callback.changed": (event) => [chip(`callback ${event.action}`), event.url, muted(`by ${event.actor}`)],
};

let number = 0;

// Remembers an event; every page does, so that the live page starts with what just happened.
export function addLive(name, event) {
  kept.unshift({ name, event, key: String((number += 1)) });
  kept.length = Math.min(kept.length, KEPT);
  redraw();
}

export async function showLive(context) {
  let wanted = { kind: "", text: "" };
  let frozen = null;
  let missed = 0;
  const list = el("ol", { class: "events", "aria-label": "Events, newest first" });
  const box = el("section", { class: "panel", "data-keep": "events" }, list);
  const fits = ({ name, event }) => (!wanted.kind || name === wanted.kind) && (!wanted.text || JSON.stringify(event).includes(wanted.text));
  const soon = atMostEvery(REDRAW_MILLISECONDS, () => {
    if (!context.signal.aborted) render(list, (frozen ?? kept).filter(fits).map(line));
  });
  redraw = () => {
    if (frozen) missed += 1;
    if (frozen) return context.refresh?.();
    soon();
  };
  context.signal.addEventListener("abort", () => (redraw = () => {}));
  const pause = async () => {
    frozen = frozen ? null : [...kept];
    missed = 0;
    soon();
    await context.refresh();
  };
  const filter = (given) => {
    wanted = given;
    soon();
  };
  const make = () => [
    row(heading("Live"), el("span", { class: "space" }), frozen && muted(`${count(missed)} new`), button(frozen ? "Go on" : "Pause", pause)),
    form({ class: "filters", "data-keep": "live" }, filter, field("Show", select("kind", KINDS)), input("text", { placeholder: "account, message, error …", "aria-label": "Containing" }), el("button", {}, "Filter")),
    box,
  ];
  soon();
  return { load: async () => null, make };
}

const line = ({ name, event, key }) => el("li", { "data-key": key, "data-event": name }, time(event.at), link(event.account, "account", event.account), LINES[name]?.(event) ?? name);
