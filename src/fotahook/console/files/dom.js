// Builds the page from elements and text alone, so that nothing in a response can become markup.
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

// UTC, as in the API and the logs; the title has the fractions of the second.
export function time(text) {
  if (!text) return "–";
  return el("time", { datetime: text, title: text }, new Date(text).toISOString().replace(/\.\d+/, ""));
}

export const count = (number) => number.toLocaleString("en");

export function table(caption, header, rows, empty) {
  if (!rows.length) return el("p", { class: "quiet" }, empty);
  const head = el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, name))));
  const body = el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, n) => el("td", { "data-name": header[n] }, el("div", {}, cell))))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, caption), head, body));
}

export function details(pairs) {
  return el("dl", {}, pairs.map(([name, ...values]) => el("div", {}, el("dt", {}, name), el("dd", {}, values))));
}

export function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), content);
}

// A button that is disabled while its action runs, and shows the action's error.
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
  notify("");
  try {
    await act();
  } catch (error) {
    notify(error);
  } finally {
    pressed.disabled = false;
  }
}

// Shows a message, also to screen readers.
export function notify(what, isGood = false) {
  if (what?.name === "AbortError") return;
  const notice = document.querySelector("#notice");
  notice.replaceChildren(...[what instanceof Error ? what.message : what].flat());
  notice.dataset.kind = isGood ? "good" : "bad";
}

// Renders a response, and leaves the page alone while the response stays the same.
export function renderer(container, make) {
  let shown = null;
  return (answer) => {
    const text = JSON.stringify(answer);
    if (text === shown) return;
    shown = text;
    container.replaceChildren(...[make(answer)].flat());
  };
}

// Pagination: `load` takes a cursor and returns a page with the cursor of the next one, `make` renders it. Returns a function
// that reloads the present page.
export async function pages(container, load, make) {
  let now = [null];
  let requests = 0;
  const render = renderer(container, ([page, cursors]) => {
    const back = cursors.length > 1 && button("← Back", () => turn(cursors.slice(0, -1)));
    const on = page.cursor && button("Next →", () => turn([...cursors, page.cursor]));
    return [make(page), el("p", { class: "pages" }, back, on)];
  });
  const turn = async (cursors) => {
    const mine = (requests += 1);
    const page = await load(cursors.at(-1));
    // Another page was requested meanwhile.
    if (mine !== requests) return;
    now = cursors;
    render([page, cursors]);
  };
  await turn(now);
  return () => turn(now);
}

// Runs the action at most once in each interval, at its end.
export function atMostEvery(milliseconds, act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => ((waiting = false), act().catch(notify)), milliseconds);
  };
}
