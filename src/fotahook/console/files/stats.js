// The last hour in numbers, and its deliveries as a bar for each minute.
import { read } from "./api.js";
import { count, details, el } from "./dom.js";

const HEIGHT = 40;
const STEP = 10;

export async function stats(signal) {
  const { totals, minutes } = await read("/v1/stats?minutes=60", signal);
  const pairs = ["accepted", "delivered", "failed", "dead"].map((name) => [name, count(totals[name])]);
  return el("section", { class: "stats", "aria-label": "Last hour" }, el("h3", {}, "Last hour"), details(pairs), chart(minutes));
}

function chart(minutes) {
  const drawing = document.querySelector("#bars").content.firstElementChild.cloneNode(true);
  const most = Math.max(1, ...minutes.map((minute) => minute.delivered));
  const bars = minutes.map(({ delivered }, n) => {
    const bar = drawing.firstElementChild.cloneNode();
    const height = (HEIGHT * delivered) / most;
    for (const [name, value] of [["x", n * STEP], ["y", HEIGHT - height], ["height", height]]) bar.setAttribute(name, value);
    return bar;
  });
  drawing.replaceChildren(...bars);
  drawing.setAttribute("aria-label", `Deliveries per minute in the last hour, at most ${count(most)}`);
  return drawing;
}
