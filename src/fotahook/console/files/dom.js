// Builds the page from elements and text alone, so that nothing in a response can become markup.
const SVG = "http://www.w3.org/2000/svg";
const SVG_NAMES = new Set(["svg", "rect", "path", "line", "title", "g", "text"]);

// An element. A function becomes the handler of its event, `style` is an object (the policy allows no style attribute).
export function el(name, attributes = {}, ...children) {
  const element = SVG_NAMES.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element[`on${key}`] = value;
    else if (key === "style") Object.assign(element.style, value);
    else if (value != null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

const nodes = (children) =>
  [children].flat(Infinity).filter((child) => child != null && child !== false && child !== "");

export const address = (...path) => `#/${path.map(encodeURIComponent).join("/")}`;
export const link = (text, ...path) => el("a", { href: address(...path) }, text);
export const code = (text) => el("code", {}, text);
export const muted = (...content) => el("span", { class: "muted" }, content);
// Focusable, because it scrolls where it is long.
export const pre = (text, kind) => el("pre", { class: kind, tabindex: "0" }, text);
export const paragraph = (...content) => el("p", {}, content);
export const row = (...content) => el("div", { class: "row" }, content);
export const count = (number) => Number(number).toLocaleString("en");
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
export const chip = (text, kind = "") => el("span", { class: `chip ${kind}` }, text);
export const heading = (...content) => el("h1", { tabindex: "-1" }, content);

// The end of an id is what tells messages of the same time apart.
export const shortId = (id) => `…${id.slice(-12)}`;

export function panel(title, ...content) {
  return el("section", { class: "panel" }, title && el("h2", {}, title), content);
}

export function pairs(list) {
  return el(
    "dl",
    {},
    list.filter(Boolean).map(([name, ...values]) => [el("dt", {}, name), el("dd", {}, values)]),
  );
}

export function figures(list) {
  return el(
    "div",
    { class: "figures" },
    list
      .filter(Boolean)
      .map(([name, value, kind]) => el("div", { class: kind }, el("span", {}, name), el("strong", {}, value))),
  );
}

// A table; a column is `[header, class]`. On a narrow screen each row becomes a block, where numbers (class "n") keep
// their headers unless there is nothing to count, and a column of class "wide" is left out.
export function table(caption, columns, rows, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  const body = rows.map(({ key, cells }) => {
    const cell = (value, n) => {
      const [name, kind] = columns[n];
      if (kind !== "n") return el("td", { class: kind }, value);
      return el("td", { class: value === "0" || value === "–" ? "n none" : "n", "data-label": name }, value);
    };
    return el("tr", { "data-key": key }, cells.map(cell));
  });
  const head = columns.map(([name, kind]) => el("th", { class: kind, scope: "col" }, name));
  return el(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
  );
}

// Choices beside each other, each with its count: [text, number, whether it is shown, address or action].
export function tabs(label, list) {
  const choice = ([text, number, isShown, to]) => {
    const [name, way] = typeof to === "string" ? ["a", { href: to }] : ["button", { type: "button", click: to }];
    return el(name, { ...way, "aria-current": isShown && "true" }, text, " ", el("i", {}, count(number)));
  };
  return el("nav", { class: "tabs", "aria-label": label }, list.map(choice));
}

// A button that is disabled while its action runs, and shows the action's error.
export function button(text, act, attributes = {}) {
  return el("button", { type: "button", ...attributes, click: (event) => guarded(event.currentTarget, act) }, text);
}

export function form(attributes, act, ...children) {
  const submit = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.currentTarget));
    return guarded(event.currentTarget.querySelector("button:not([type=button])"), () => act(given, event.target));
  };
  return el("form", { ...attributes, submit }, children);
}

export const field = (label, input, hint) =>
  el("label", {}, el("span", {}, label), input, hint && el("small", {}, hint));
export const input = (name, attributes = {}) =>
  el("input", { name, autocomplete: "off", spellcheck: "false", ...attributes });

export function select(name, options, chosen) {
  return el(
    "select",
    { name },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
}

function setBusy(pressed, isBusy) {
  pressed.disabled = isBusy;
  if (isBusy) pressed.setAttribute("aria-busy", "true");
  else pressed.removeAttribute("aria-busy");
}

export async function guarded(pressed, act) {
  if (pressed) setBusy(pressed, true);
  try {
    await act();
  } catch (error) {
    notify(error);
  } finally {
    if (pressed) setBusy(pressed, false);
  }
}

// Shows a message, also to screen readers. An error stays until something else is shown.
export function notify(what, isGood = false) {
  if (what?.name === "AbortError") return;
  const notice = document.querySelector("#notice");
  notice.dataset.kind = isGood ? "ok" : "bad";
  const close = el(
    "button",
    { type: "button", class: "plain", "aria-label": "Dismiss", click: () => notice.replaceChildren() },
    "×",
  );
  notice.replaceChildren(...nodes(what instanceof Error ? what.message : what), ...(what ? [close] : []));
}

// A dialog that is shown until it is closed.
export function dialog(kind, title, ...content) {
  const shown = el(
    "dialog",
    { class: kind, close: () => shown.remove() },
    el("form", { method: "dialog" }, el("h2", {}, title), content),
  );
  document.body.append(shown);
  shown.showModal();
  return shown;
}

// Asks before something that cannot be taken back; with `typed`, the button works once this text is typed.
export function confirm(title, text, action, { typed = null, kind = "danger" } = {}) {
  const go = el("button", { value: "go", class: kind, disabled: typed !== null }, action);
  const check = (event) => (go.disabled = event.target.value !== typed);
  const shown = dialog(
    "",
    title,
    [text].flat().map((one) => paragraph(one)),
    typed !== null && field(`Type ${typed} to confirm`, input("typed", { input: check })),
    row(go, el("button", { value: "", formnovalidate: true }, "Cancel")),
  );
  return new Promise((resolve) => shown.addEventListener("close", () => resolve(shown.returnValue === "go")));
}

export async function copy(text, what) {
  await navigator.clipboard.writeText(text);
  notify(`${what} copied.`, true);
}

// Replaces a container's content and keeps focus, scrolling, open details and typed text: elements are changed, not
// made anew. An element that a view made once and gives again stays itself.
export function render(container, ...content) {
  patchChildren(
    container,
    nodes(content).map((one) => (one instanceof Node ? one : document.createTextNode(one))),
  );
}

function patchChildren(from, wanted) {
  const keyed = new Map([...from.children].filter((one) => one.dataset?.key).map((one) => [one.dataset.key, one]));
  let at = from.firstChild;
  for (const one of wanted) {
    const known = one.parentNode === from ? one : one.dataset?.key && keyed.get(one.dataset.key);
    if (known && known !== at) from.insertBefore(known, at);
    const present = known || at;
    if (present === one) at = one.nextSibling;
    else if (present && alike(present, one)) {
      patch(present, one);
      at = present.nextSibling;
    } else from.insertBefore(one, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Attributes that say what people did, or what is under way.
const OWN = new Set(["open", "disabled", "aria-busy"]);

const alike = (one, other) =>
  one.nodeName === other.nodeName &&
  one.dataset?.key === other.dataset?.key &&
  one.dataset?.keep === other.dataset?.keep;

function patch(from, to) {
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  // What a container shows by itself, such as a form that somebody is filling in, is left alone.
  if (from.dataset?.keep) return;
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && !OWN.has(name)) from.removeAttribute(name);
  for (const { name, value } of to.attributes) {
    // Whoever opened or closed it decides.
    if (from.getAttribute(name) === value || name === "open") continue;
    // The policy lets a script set a style, but not the attribute of that name.
    if (name === "style") from.style.cssText = value;
    else from.setAttribute(name, value);
  }
  for (const event of ["onclick", "onsubmit", "ontoggle", "oninput", "onchange"]) from[event] = to[event];
  patchChildren(from, [...to.childNodes]);
}

// Runs the action at most once in each interval, at its end.
export function atMostEvery(milliseconds, act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => ((waiting = false), act()), milliseconds);
  };
}
