// The search field: results as you type, arrow keys and Enter to open one.
import { query, read } from "./api.js";
import { time } from "./clock.js";
import { address, atMostEvery, code, el, muted, notify } from "./dom.js";
import { stateOf } from "./states.js";

const PAUSE_MILLISECONDS = 50;
const FILTER = /(^|\s)(type|state|since|until):/;
const EXAMPLES = ["type:upgradeProgress", "state:dead", "since:1h", "until:2026-11-25T20:00:00Z"];

export function attachSearch(form) {
  const field = form.elements.q;
  const list = form.querySelector("ul");
  let chosen = -1;
  let latest = { text: null };
  const options = () => [...list.querySelectorAll("a")];
  const show = (items) => {
    list.replaceChildren(...items);
    list.hidden = !items.length;
    field.setAttribute("aria-expanded", String(items.length > 0));
    choose(options().length ? 0 : -1);
  };
  const choose = (n) => {
    chosen = n;
    options().forEach((option, at) => option.setAttribute("aria-selected", String(at === n)));
    options()[n]?.scrollIntoView({ block: "nearest" });
    if (n >= 0) field.setAttribute("aria-activedescendant", options()[n].id);
    else field.removeAttribute("aria-activedescendant");
  };
  const find = async (text) => {
    if (!text) return show(document.activeElement === field ? [hint()] : []);
    // A filter that is being typed has no meaning yet: the answer says which ones have.
    const refused = (error) => {
      if (error.status === 400) return [note(error.message)];
      latest = { text: null };
      throw error;
    };
    const found = await read(`/v1/search${query({ q: text })}`).then((answer) => results(text, answer), refused);
    // Unless something else was typed meanwhile.
    if (latest.text === text) show(found);
  };
  // Enter right after the last key waits for the answer that is under way.
  const search = () => {
    const text = field.value.trim();
    if (latest.text !== text) latest = { text, shown: find(text) };
    return latest.shown;
  };
  const close = () => {
    latest = { text: null };
    show([]);
    field.blur();
  };
  const soon = atMostEvery(PAUSE_MILLISECONDS, () => search().catch(notify));
  field.addEventListener("input", soon);
  field.addEventListener("focus", soon);
  // A click on a result still finds it.
  field.addEventListener("blur", () => setTimeout(() => document.activeElement !== field && close(), 200));
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const { length } = options();
    if (event.key === "Escape") close();
    else if (step && length) {
      event.preventDefault();
      choose((chosen + step + length) % length);
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await search().catch(notify);
    const option = options()[chosen];
    if (!option) return;
    location.hash = new URL(option.href).hash;
    close();
  });
}

const note = (...content) => el("li", { class: "muted", role: "option", "aria-disabled": "true" }, content);
const hint = () =>
  note(
    "Or messages, also after the beginning of an account: ",
    EXAMPLES.flatMap((text) => [code(text), " "]),
  );

function results(text, { accounts, messages, devices, campaigns }) {
  const items = [
    ...accounts.map((one) => ["account", one.account, stateOf(one), "account", one.account]),
    ...campaigns.map((one) => ["campaign", one.campaignId, one.account, "campaign", one.account, one.campaignId]),
    ...devices.map((one) => [
      "device",
      one.deviceId,
      [one.status, " ", time(one.at)],
      "campaign",
      one.account,
      one.campaignId,
      one.deviceId,
    ]),
    ...messages.map((one) => [
      "message",
      one.id,
      [one.account, " ", one.type, " ", time(one.acceptedAt)],
      "message",
      one.id,
    ]),
  ];
  if (items.length) return items.map(item);
  if (FILTER.test(text)) return [note(`No message matches “${text}”, as far as the search looks back.`)];
  return [note(`Nothing is called “${text}”: no account, message id, device, campaign or type of message.`)];
}

const item = ([kind, name, more, ...path], n) =>
  el(
    "li",
    { role: "none" },
    el(
      "a",
      { role: "option", id: `found-${n}`, href: address(...path), tabindex: "-1" },
      muted(kind),
      " ",
      code(name),
      " ",
      more,
    ),
  );
