// Drawings of numbers: bars by minute, a sparkline, a bar of parts, a waterfall of phases.
import { count, el } from "./dom.js";
import { exact, milliseconds } from "./clock.js";

const WIDTH = 10;

// Deliveries by minute with failed attempts stacked on them.
export function bars(minutes, height = 72) {
  const most = Math.max(1, ...minutes.map((one) => one.delivered + one.failed + one.dead));
  const shapes = minutes.map((one, n) => {
    let top = height;
    const shape = (kind, number) => {
      const tall = number && Math.max((height * number) / most, 1.5);
      top -= tall;
      return number > 0 && el("rect", { class: kind, x: n * WIDTH + 1, y: Math.max(top, 0), width: WIDTH - 2, height: tall, rx: 1 });
    };
    const text = `${exact(one.at)}: ${count(one.accepted)} accepted, ${count(one.delivered)} delivered, ${count(one.failed)} failed, ${count(one.dead)} dead`;
    return el("g", {}, el("rect", { class: "hover", x: n * WIDTH, y: 0, width: WIDTH, height }), shape("delivered", one.delivered), shape("failed", one.failed), shape("dead", one.dead), el("title", {}, text));
  });
  const label = `By minute, the last ${minutes.length}: at most ${count(most)} attempts in one`;
  return el("svg", { class: "bars", viewBox: `0 0 ${minutes.length * WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, shapes);
}

export const legend = () => el("p", { class: "legend" }, ["delivered", "failed", "dead"].map((name) => el("span", { class: name }, name)));

export function sparkline(minutes) {
  const most = Math.max(1, ...minutes.map((one) => one.delivered + one.failed));
  const shapes = minutes.map((one, n) => [["delivered", one.delivered, 0], ["failed", one.failed, one.delivered]].map(([kind, number, below]) => number > 0 &&
    el("rect", { class: kind, x: n * 2, width: 1.5, y: 20 - (20 * (below + number)) / most, height: Math.max((20 * number) / most, 1) })));
  return el("svg", { class: "sparkline", viewBox: `0 0 ${minutes.length * 2} 20`, preserveAspectRatio: "none", role: "img", "aria-label": "The last hour" }, shapes);
}

// A bar of parts: [name, number, kind].
export function parts(list) {
  const total = list.reduce((sum, [, number]) => sum + number, 0) || 1;
  const text = list.map(([name, number]) => `${count(number)} ${name}`).join(", ");
  return el("div", { class: "parts", role: "img", "aria-label": text }, list.map(([name, number, kind]) => number > 0 &&
    el("i", { class: kind, title: `${count(number)} ${name}`, style: { width: `${(100 * number) / total}%` } })));
}

const PHASES = [["dns", "DNS"], ["connect", "connect"], ["tls", "TLS"], ["firstByte", "first byte"]];

// The phases of an attempt, one after the other, on a scale shared by the attempts of a table.
export function waterfall(phases, scale) {
  let left = 0;
  const known = PHASES.filter(([name]) => phases[name] != null).map(([name, text]) => [name, text, phases[name]]);
  const rest = Math.max((phases.total ?? 0) - known.reduce((sum, [, , number]) => sum + number, 0), 0);
  const all = rest > 0 ? [...known, ["rest", "rest", rest]] : known;
  const shapes = all.map(([name, text, number]) => {
    const shape = el("i", { class: name, title: `${text} ${milliseconds(number)} ms`, style: { left: `${(100 * left) / scale}%`, width: `max(${(100 * number) / scale}%, 2px)` } });
    left += number;
    return shape;
  });
  const label = all.map(([, text, number]) => `${text} ${milliseconds(number)} ms`).join(", ");
  return el("span", { class: "waterfall", role: "img", "aria-label": label || "no phase was reached", title: label }, shapes);
}

export const scaleOf = (attempts) => Math.max(1, ...attempts.map((one) => one.phases?.total ?? 0));
