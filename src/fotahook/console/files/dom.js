// What the page is made of. Text alone is ever put into it, so that nothing in an answer can become part of it.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value != null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false && child !== ""));
  return element;
}

export const link = (text, ...path) => el("a", { href: address(...path) }, text);
export const address = (...path) => `#/${path.map(encodeURIComponent).join("/")}`;

export const badge = (state) => el("span", { class: "badge", "data-state": state }, state);

export function moment(text) {
  if (!text) return "–";
  return el("time", { datetime: text, title: text }, new Date(text).toLocaleString());
}

export function fromNow(text) {
  const seconds = Math.round((new Date(text) - Date.now()) / 1000);
  const size = Math.abs(seconds);
  const [unit, length] = size < 90 ? ["second", 1] : size < 5400 ? ["minute", 60] : size < 129600 ? ["hour", 3600] : ["day", 86400];
  return new Intl.RelativeTimeFormat("en").format(Math.trunc(seconds / length), unit);
}

export const count = (number) => number.toLocaleString("en");

export function table(caption, header, rows, empty) {
  if (!rows.length) return el("p", { class: "quiet" }, empty);
  const head = el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, name))));
  const body = el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, n) => el("td", { "data-name": header[n] }, el("div", {}, cell))))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, caption), head, body));
}

export function facts(pairs) {
  return el("dl", {}, pairs.map(([name, ...values]) => el("div", {}, el("dt", {}, name), el("dd", {}, values))));
}

export function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), content);
}

// A button that cannot be pressed twice, and tells what went wrong.
export function button(text, act, attributes = {}) {
  return el("button", { type: "button", ...attributes, click: (event) => guarded(event.currentTarget, act) }, text);
}

export function form(attributes, act, ...children) {
  const submit = (event) => {
    event.preventDefault();
    return guarded(event.currentTarget.querySelector("button"), () => act(Object.fromEntries(new FormData(event.target))));
  };
  return el("form", { ...attributes, submit }, children);
}

export const field = (label, input) => el("label", {}, label, input);

export function select(name, options, chosen) {
  return el("select", { name }, options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

async function guarded(pressed, act) {
  pressed.disabled = true;
  tell("");
  try {
    await act();
  } catch (error) {
    tell(error);
  } finally {
    pressed.disabled = false;
  }
}

// What happened, for eyes and screen readers.
export function tell(what, isGood = false) {
  if (what?.name === "AbortError") return;
  const notice = document.querySelector("#notice");
  notice.replaceChildren(...[what instanceof Error ? what.message : what].flat());
  notice.dataset.kind = isGood ? "good" : "bad";
}

// Shows what is made of an answer, and leaves it alone where the answer is the same: nothing moves under somebody's hand.
export function painter(place, make) {
  let shown = null;
  return (answer) => {
    const text = JSON.stringify(answer);
    if (text === shown) return;
    shown = text;
    place.replaceChildren(...[make(answer)].flat());
  };
}

// One page after the other, and back: `load` gets a cursor and answers a page with the cursor of the next one, `make` shows
// it. What is answered here loads the page that is shown once more.
export async function pages(place, load, make) {
  let now = [null];
  let asked = 0;
  const paint = painter(place, ([page, cursors]) => {
    const back = cursors.length > 1 && button("← Back", () => turn(cursors.slice(0, -1)));
    const on = page.cursor && button("Next →", () => turn([...cursors, page.cursor]));
    return [make(page), el("p", { class: "pages" }, back, on)];
  });
  const turn = async (cursors) => {
    const mine = (asked += 1);
    const page = await load(cursors.at(-1));
    // Somebody turned the page meanwhile.
    if (mine !== asked) return;
    now = cursors;
    paint([page, cursors]);
  };
  await turn(now);
  return () => turn(now);
}

// Once at the end of each span in which it is called, however often.
export function atMostEvery(milliseconds, act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => ((waiting = false), act().catch(tell)), milliseconds);
  };
}
