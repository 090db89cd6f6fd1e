// How much happened in the last hour, as numbers and as a bar for each minute.
import { read } from "./api.js";
import { count, el, facts } from "./dom.js";

const HEIGHT = 40;
const STEP = 10;

export async function stats(signal) {
  const { totals, minutes } = await read("/v1/stats?minutes=60", signal);
  const told = ["accepted", "delivered", "failed", "dead"].map((name) => [name, count(totals[name])]);
  return el("section", { class: "stats", "aria-label": "The last hour" }, el("h3", {}, "The last hour"), facts(told), chart(minutes));
}

function chart(minutes) {
  const drawing = document.querySelector("#bars").content.firstElementChild.cloneNode(true);
  const most = Math.max(1, ...minutes.map((minute) => minute.delivered));
  const bars = minutes.map(({ delivered }, n) => {
    const bar = drawing.firstElementChild.cloneNode();
    const high = (HEIGHT * delivered) / most;
    for (const [name, value] of [["x", n * STEP], ["y", HEIGHT - high], ["height", high]]) bar.setAttribute(name, value);
    return bar;
  });
  drawing.replaceChildren(...bars);
  drawing.setAttribute("aria-label", `Delivered in each minute of the last hour, ${count(most)} at the most`);
  return drawing;
}
