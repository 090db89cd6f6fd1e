// Drawings of numbers: bars over time, a sparkline, a bar of parts, a waterfall of phases.
import { count, el } from "./dom.js";
import { exact, latency } from "./clock.js";

const WIDTH = 10;
const HEIGHT = 72;
const SPARK = { width: 2, height: 20 };

// What happens to deliveries, from the bottom of a bar to its top. What is accepted is a line over the bars.
const DELIVERIES = ["delivered", "failed", "dead"];
export const RESULTS = ["succeeded", "failed", "other"];

// Bars of these kinds, stacked, for each slot of time: {at, and a number for each kind}; "accepted" as a line.
export function bars(label, slots, kinds = DELIVERIES) {
  const most = Math.max(1, ...slots.map((one) => Math.max(sum(one, kinds), one.accepted ?? 0)));
  const tall = (number) => (HEIGHT * number) / most;
  const shapes = slots.map((one, n) => {
    let top = HEIGHT;
    const stacked = kinds.map((kind) => {
      const height = one[kind] && Math.max(tall(one[kind]), 1.5);
      top -= height;
      return (
        height > 0 &&
        el("rect", { class: kind, x: n * WIDTH + 1, y: Math.max(top, 0), width: WIDTH - 2, height, rx: 1 })
      );
    });
    const numbers = [one.accepted != null && "accepted", ...kinds]
      .filter(Boolean)
      .map((kind) => `${count(one[kind])} ${kind}`);
    const hover = el("rect", { class: "hover", x: n * WIDTH, y: 0, width: WIDTH, height: HEIGHT });
    return el("g", {}, hover, stacked, el("title", {}, `${exact(one.at)}: ${numbers.join(", ")}`));
  });
  const steps = slots.map((one, n) => `${n ? "L" : "M"}${n * WIDTH} ${HEIGHT - tall(one.accepted)}h${WIDTH}`);
  const line = slots[0]?.accepted != null && el("path", { class: "accepted", d: steps.join("") });
  return drawing("bars", slots.length * WIDTH, HEIGHT, `${label}: at most ${count(most)} in one bar`, shapes, line);
}

const sum = (one, kinds) => kinds.reduce((total, kind) => total + one[kind], 0);

const drawing = (kind, width, height, label, ...shapes) =>
  el(
    "svg",
    { class: kind, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    shapes,
  );

export const legend = (kinds = ["accepted", ...DELIVERIES]) =>
  el(
    "p",
    { class: "legend" },
    kinds.map((name) => el("span", { class: name }, name === "other" ? "under way" : name)),
  );

export function sparkline(minutes) {
  const { width, height } = SPARK;
  const kinds = ["delivered", "failed"];
  const most = Math.max(1, ...minutes.map((one) => sum(one, kinds)));
  const shapes = minutes.map((one, n) => {
    let top = height;
    return kinds.map((kind) => {
      const tall = one[kind] && Math.max((height * one[kind]) / most, 1);
      top -= tall;
      return tall > 0 && el("rect", { class: kind, x: n * width, width: width - 0.5, y: top, height: tall });
    });
  });
  return drawing("sparkline", minutes.length * width, height, "The last hour", shapes);
}

// A bar of parts: [name, number, kind].
export function parts(list) {
  const total = list.reduce((sum, [, number]) => sum + number, 0) || 1;
  const part = ([name, number, kind]) =>
    number > 0 &&
    el("i", { class: kind, title: `${count(number)} ${name}`, style: { width: `${(100 * number) / total}%` } });
  const text = list.map(([name, number]) => `${count(number)} ${name}`).join(", ");
  return el("div", { class: "parts", role: "img", "aria-label": text }, list.map(part));
}

const PHASES = [
  ["dns", "DNS"],
  ["connect", "connect"],
  ["tls", "TLS"],
  ["firstByte", "first byte"],
];

// The phases of an attempt, one after the other, on a scale shared by the attempts of a table. What is left of the
// total is the answer's end, or the phase in which the attempt failed.
export function waterfall({ phases, errorCode }, scale) {
  const known = PHASES.filter(([name]) => phases[name] != null).map(([name, text]) => [name, text, phases[name]]);
  const left = (phases.total ?? 0) - known.reduce((total, [, , number]) => total + number, 0);
  const isAnswered = phases.firstByte != null || !errorCode;
  const all = left > 0 ? [...known, isAnswered ? ["rest", "rest", left] : ["broken", "until it failed", left]] : known;
  let before = 0;
  const shapes = all.map(([name, text, number]) => {
    const at = (100 * before) / scale;
    before += number;
    const style = { left: `${at}%`, width: `max(${(100 * number) / scale}%, 2px)` };
    return el("i", { class: name, title: `${text} ${latency(number)}`, style });
  });
  const label = all.map(([, text, number]) => `${text} ${latency(number)}`).join(", ");
  return el(
    "span",
    { class: "waterfall", role: "img", "aria-label": label || "no phase was reached", title: label },
    shapes,
  );
}

export const scaleOf = (attempts) => Math.max(1, ...attempts.map((one) => one.phases?.total ?? 0));
