// The keyboard: what each key does, and the list of them.
import { dialog, el } from "./dom.js";

const PLACES = { o: "overview", a: "accounts", c: "campaigns", l: "live", s: "send" };
const HELP = [
  ["/", "search"],
  ["j  k", "next and previous row"],
  ["Enter", "open the row"],
  ["r", "refresh"],
  ["g o", "overview"],
  ["g a", "accounts"],
  ["g c", "campaigns"],
  ["g l", "live"],
  ["g s", "send a test"],
  ["Esc", "leave the search, close a dialog"],
  ["?", "this list"],
];

export function listenToKeys(refresh) {
  let isGoing = false;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog"))
      return;
    const { key } = event;
    if (isGoing && PLACES[key]) location.hash = `#/${PLACES[key]}`;
    else if (key === "/") document.querySelector("#search input").focus();
    else if (key === "?") showHelp();
    else if (key === "r") refresh();
    else if (key === "j" || key === "k") move(key === "j" ? 1 : -1);
    else if (key !== "g") return;
    isGoing = key === "g" && !isGoing;
    event.preventDefault();
  });
}

// Focuses the link of the next row; Enter opens it.
function move(step) {
  const rows = [...document.querySelectorAll("main tbody tr, main .events li")];
  const links = rows.map((row) => row.querySelector("a")).filter(Boolean);
  const at = links.indexOf(document.activeElement);
  const first = step > 0 ? 0 : links.length - 1;
  links[at < 0 ? first : Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
}

export function showHelp() {
  const list = HELP.map(([keys, text]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, text)]);
  dialog("help", "Keyboard shortcuts", el("dl", {}, list), el("button", {}, "Close"));
}
