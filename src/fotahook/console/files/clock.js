// Times: relative, exact on hover, by one clock (local or UTC), and kept true while the page is open.
import { el } from "./dom.js";

const UNITS = [
  [86400, "day"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];
let isUtc = false;

const part = (number, digits = 2) => String(number).padStart(digits, "0");

// A duration in its two largest units, such as "4 min 10 s".
export function duration(seconds) {
  if (seconds < 1) return seconds > 0 ? `${Math.round(seconds * 1000)} ms` : "0 s";
  const first = UNITS.findIndex(([size]) => seconds >= size);
  const [size, name] = UNITS[first];
  const whole = Math.floor(seconds / size);
  const text = `${whole} ${name}${name === "day" && whole > 1 ? "s" : ""}`;
  const next = UNITS[first + 1];
  const rest = next && whole < 10 ? Math.floor((seconds % size) / next[0]) : 0;
  return rest ? `${text} ${rest} ${next[1]}` : text;
}

export const milliseconds = (number) =>
  number < 10 ? `${Math.round(number * 10) / 10}` : `${Math.round(number).toLocaleString("en")}`;

// How long something takes, such as "310 ms" or "2.9 s".
export const latency = (number) =>
  number == null ? "–" : number < 1000 ? `${milliseconds(number)} ms` : `${Number((number / 1000).toPrecision(2))} s`;

export function exact(text) {
  const date = new Date(text);
  if (isUtc)
    return `${date
      .toISOString()
      .replace("T", " ")
      .replace(/\.\d+Z$/, "")} UTC`;
  const day = `${date.getFullYear()}-${part(date.getMonth() + 1)}-${part(date.getDate())}`;
  return `${day} ${part(date.getHours())}:${part(date.getMinutes())}:${part(date.getSeconds())}`;
}

const WORDS = {
  ago: (seconds) => (seconds < 1 ? "just now" : `${coarse(seconds)} ago`),
  age: (seconds) => coarse(Math.max(seconds, 0)),
  until: (seconds) => (-seconds < 1 ? "now" : `in ${duration(-seconds)}`),
  exact: () => "",
};
const coarse = (seconds) => duration(seconds < 60 ? Math.floor(seconds) : Math.floor(seconds / 60) * 60);

// An element that shows a time as "ago", "age", "until" or "exact".
export function time(text, how = "ago") {
  if (!text) return "–";
  const element = el("time", { datetime: text, "data-how": how });
  refresh(element);
  return element;
}

function refresh(element) {
  const text = element.dateTime;
  const { how } = element.dataset;
  element.title = `${exact(text)} (${text})`;
  const shown = how === "exact" ? exact(text) : WORDS[how]((Date.now() - Date.parse(text)) / 1000);
  if (element.textContent !== shown) element.textContent = shown;
}

const refreshAll = () => document.querySelectorAll("time[data-how]").forEach(refresh);

export function switchClock() {
  isUtc = !isUtc;
  refreshAll();
  return clockName();
}

export const clockName = () => (isUtc ? "UTC" : "local time");

// A value of an <input type="datetime-local">, which has no zone, as an instant by the clock in use.
export const instant = (text) => (text ? new Date(isUtc ? `${text}Z` : text).toISOString() : "");

setInterval(refreshAll, 1000);
