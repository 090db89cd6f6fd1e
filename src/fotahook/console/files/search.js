// The search field: results as you type, arrow keys and Enter to open one.
import { query, read } from "./api.js";
import { time } from "./clock.js";
import { address, atMostEvery, el, notify } from "./dom.js";
import { stateOf } from "./states.js";

const PAUSE_MILLISECONDS = 120;

export function attachSearch(form) {
  const field = form.elements.q;
  const list = form.querySelector("ul");
  let chosen = -1;
  let requests = 0;
  const show = (items) => {
    list.replaceChildren(...items);
    list.hidden = !items.length;
    field.setAttribute("aria-expanded", String(items.length > 0));
    choose(items.length && items[0].getAttribute("role") === "option" ? 0 : -1);
  };
  const choose = (n) => {
    chosen = n;
    [...list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === n)));
    list.children[n]?.scrollIntoView({ block: "nearest" });
    if (n >= 0) field.setAttribute("aria-activedescendant", list.children[n].id);
    else field.removeAttribute("aria-activedescendant");
  };
  const search = async () => {
    const text = field.value.trim();
    const mine = (requests += 1);
    if (!text) return show(document.activeElement === field ? [hint()] : []);
    // A filter that is being typed has no meaning yet: the answer says which ones have.
    const found = await read(`/v1/search${query({ q: text })}`).then((found) => results(text, found), (error) => {
      if (error.status !== 400) throw error;
      return [el("li", { class: "muted" }, error.message)];
    });
    // Something else was typed meanwhile.
    if (mine === requests) show(found);
  };
  const soon = atMostEvery(PAUSE_MILLISECONDS, () => search().catch(notify));
  field.addEventListener("input", soon);
  field.addEventListener("focus", soon);
  field.addEventListener("blur", () => setTimeout(() => (list.hidden = list.hidden || document.activeElement !== field), 200));
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      show([]);
      field.blur();
    } else if (step && list.children.length) {
      event.preventDefault();
      choose((chosen + step + list.children.length) % list.children.length);
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await search().catch(notify);
    const open = list.children[Math.max(chosen, 0)]?.querySelector("a");
    if (!open) return;
    location.hash = new URL(open.href).hash;
    show([]);
    field.blur();
  });
}

const FILTER = /(^|\s)(type|state|since|until):/;

function hint() {
  const filters = ["type:upgradeProgress", "state:dead", "since:1h", "until:2026-11-25T20:00:00Z"].flatMap((text) => [el("code", {}, text), " "]);
  return el("li", { class: "muted" }, "Or messages, also after the beginning of an account: ", filters);
}

function results(text, { accounts, messages, devices, campaigns }) {
  const item = (kind, name, more, ...path) => el("li", { role: "option" }, el("a", { href: address(...path), tabindex: "-1" }, el("span", { class: "muted" }, kind), " ", el("code", {}, name), " ", more));
  const items = [
    ...accounts.map((one) => item("account", one.account, stateOf(one), "account", one.account)),
    ...campaigns.map((one) => item("campaign", one.campaignId, one.account, "campaign", one.account, one.campaignId)),
    ...devices.map((one) => item("device", one.deviceId, [one.status, " ", time(one.at)], "campaign", one.account, one.campaignId, one.deviceId)),
    ...messages.map((one) => item("message", one.id, [one.account, " ", one.type, " ", time(one.acceptedAt)], "message", one.id)),
  ];
  items.forEach((one, n) => (one.id = `found-${n}`));
  if (!items.length && FILTER.test(text)) return [el("li", { class: "muted" }, `No message matches “${text}”, as far as the search looks back.`)];
  return items.length ? items : [el("li", { class: "muted" }, `Nothing is called “${text}”: no account, message id, device, campaign or type of message.`)];
}
