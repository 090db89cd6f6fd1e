// The live list: the last 200 events, then new ones as they come; kept while other pages are shown.
import { latency, time } from "./clock.js";
import {
  address,
  atMostEvery,
  button,
  chip,
  count,
  el,
  field,
  form,
  heading,
  input,
  link,
  muted,
  render,
  row,
  select,
  shortId,
} from "./dom.js";
import { errorText } from "./states.js";

const KEPT = 200;
const REDRAW_MILLISECONDS = 100;
const KINDS = [
  ["", "every event"],
  ["message.accepted", "accepted"],
  ["attempt.finished", "attempts"],
  ["message.dead", "dead"],
  ["lane.changed", "lanes"],
  ["callback.changed", "callbacks"],
];
const LANES = { waiting: "bad", open: "ok" };

const kept = [];
let number = 0;
let redraw = () => {};

const message = ({ id }) => el("a", { href: address("message", id), title: id }, shortId(id));
const LINES = {
  "message.accepted": (event) => [chip("accepted"), message(event), muted(event.type, ` ${count(event.size)} bytes`)],
  "attempt.finished": (event) => [
    event.errorCode ? chip(errorText(event.errorCode), "bad") : chip(event.outcome, "ok"),
    message(event),
    muted(`attempt ${event.number}`, event.milliseconds != null && ` · ${latency(event.milliseconds)}`),
  ],
  "message.dead": (event) => [chip("dead", "bad"), message(event), muted(errorText(event.errorCode ?? "given_up"))],
  "lane.changed": (event) => [
    chip(`lane ${event.state}`, LANES[event.state] ?? "warn"),
    event.reason && errorText(event.reason),
    event.until && muted("next try ", time(event.until, "until")),
  ],
  "callback.changed": (event) => [
    chip(`callback ${event.action}`),
    el("span", {}, event.url),
    muted(`by ${event.actor}`),
  ],
  connection: ({ text }) => muted(text),
};

// Remembers an event; every page does, so that the live page starts with what just happened.
export function addLive(name, event) {
  kept.unshift({ name, event, key: String((number += 1)) });
  kept.length = Math.min(kept.length, KEPT);
  redraw();
}

export const clearLive = () => (kept.length = 0);

export async function showLive(context) {
  let wanted = { kind: "", text: "" };
  let frozen = null;
  let missed = 0;
  const list = el("ol", { class: "events", "aria-label": "Events, newest first" });
  const empty = el("p", { class: "empty" });
  const box = el("section", { class: "panel", "data-keep": "events" }, list, empty);
  const fits = ({ name, event }) =>
    (!wanted.kind || name === wanted.kind) && (!wanted.text || JSON.stringify(event).includes(wanted.text));
  const soon = atMostEvery(REDRAW_MILLISECONDS, () => {
    if (context.signal.aborted) return;
    const lines = (frozen ?? kept).filter(fits).map(line);
    render(list, lines);
    empty.textContent = lines.length
      ? ""
      : kept.length
        ? "No event of the last ones fits."
        : "Nothing happened yet. Events appear here as they come.";
  });
  redraw = () => {
    if (!frozen) return soon();
    missed += 1;
    context.refresh();
  };
  context.signal.addEventListener("abort", () => (redraw = () => {}));
  const pause = async () => {
    frozen = frozen ? null : [...kept];
    missed = 0;
    soon();
    await context.refresh();
  };
  const filter = ({ currentTarget }) => {
    wanted = Object.fromEntries(new FormData(currentTarget));
    soon();
  };
  const make = () => [
    row(
      heading("Live"),
      el("span", { class: "space" }),
      frozen && muted(`${count(missed)} new`),
      button(frozen ? "Go on" : "Pause", pause),
    ),
    form(
      { class: "filters", "data-keep": "live", input: filter, "aria-label": "Filter events" },
      () => {},
      field("Show", select("kind", KINDS)),
      field("Containing", input("text", { placeholder: "account, message, error" })),
    ),
    box,
  ];
  soon();
  return { load: async () => null, make };
}

const line = ({ name, event, key }) =>
  el(
    "li",
    { "data-key": key, "data-event": name },
    time(event.at),
    event.account != null && link(event.account, "account", event.account),
    LINES[name]?.(event) ?? name,
  );
