// An account's callback: registering and changing it, its history, limits and signing keys.
import { patch, post, put, remove, segment } from "./api.js";
import { time } from "./clock.js";
import {
  button,
  code,
  confirm,
  copy,
  count,
  dialog,
  el,
  field,
  form,
  input,
  muted,
  pairs,
  panel,
  paragraph,
  plural,
  row,
  table,
} from "./dom.js";

const CHANGES = [["When"], ["Change"], ["URL", "url"], ["By"], ["", "end"]];
const KEYS = [["Id"], ["Created"], ["Ends"], ["", "end"]];

// Each limit: its name, what it limits, the unit of its number, and the numbers that its field takes.
const LIMITS = [
  ["inFlight", "deliveries", "at once", { min: "1", max: "256" }],
  ["perSecond", "rate", "deliveries per second", { min: "0.001", max: "10000", step: "any" }],
  ["pendingMessages", "waiting", "messages", { min: "0" }],
  ["pendingBytes", "waiting", "bytes", { min: "0" }],
  ["publishesPerSecond", "publishes", "per second", { min: "0" }],
  ["changesPerHour", "changes", "per hour", { min: "0" }],
];

// `then(act, text)` runs an action, refreshes the page, and shows what was done.
export function callbackActions(then, path, name) {
  const deregisterText = [
    "ThingSpace's messages for this account are kept until a callback is registered again.",
    `The account ${name} receives nothing until then.`,
  ];
  const keyText = "Receivers that verify with it refuse deliveries at once.";
  return {
    check: (url) => post(`${path}/check`, { url }),
    register: then(
      (url) => put(`${path}/callback`, { url }),
      ({ url }) => `The callback is now ${url}.`,
    ),
    deregister: then(
      async () => {
        const isMeant = await confirm("Deregister the callback?", deregisterText, "Deregister", { typed: name });
        return isMeant ? remove(`${path}/callback`) : undefined;
      },
      () => "Deregistered: messages wait for a callback.",
    ),
    limits: then(
      (limits) => patch(path, { limits }),
      () => "Limits changed.",
    ),
    rotate: then(
      () => post(`${path}/signing-keys`, {}),
      ({ secret }) => [
        "New signing key, shown once: ",
        code(secret),
        " ",
        button("Copy", () => copy(secret, "The key")),
      ],
    ),
    endKey: then(
      async (id) => {
        const isMeant = await confirm("End this signing key?", keyText, "End it");
        return isMeant ? remove(`${path}/signing-keys/${segment(id)}`) : undefined;
      },
      () => "The key has ended.",
    ),
  };
}

export function callbackPanels(act, can, { account, defaults, changes, keys }) {
  const { callback, limits, lane } = account;
  return [
    panel(
      "Callback",
      pairs([
        ["URL", callback ? code(callback.url) : "none registered"],
        callback && ["since", time(callback.registeredAt), changes[0] && muted(`, by ${changes[0].actor}`)],
        ["signing", `ed25519${keys.length ? ` · ${plural(keys.length, "HMAC key")}` : ""}`],
      ]),
      can("callbacks") && registration(act, callback, changes),
    ),
    panel(
      "Limits",
      pairs(
        LIMITS.map(([name, label, unit]) => [
          label,
          limitText(limits[name], defaults[name], unit),
          name === "inFlight" && lane.state === "open" && muted(`, ${count(lane.inFlight)} now`),
        ]),
      ),
      can("operate") && limitsForm(act, limits),
    ),
    can("operate") && panel("Signing keys", keyTable(act, keys)),
  ];
}

function limitText(own, standard, unit) {
  const number = own ?? standard;
  return [number ? `${count(number)} ${unit}` : "no limit", own == null && muted(" (service default)")];
}

function limitsForm(act, limits) {
  const set = (given) =>
    act.limits(Object.fromEntries(LIMITS.map(([name]) => [name, given[name] === "" ? null : Number(given[name])])));
  const fields = LIMITS.map(([name, label, unit, range]) =>
    field(
      `${label}, ${unit}`,
      input(name, { type: "number", value: limits[name] ?? "", placeholder: "default", ...range }),
    ),
  );
  return el(
    "details",
    { "data-keep": `limits-${Object.values(limits).join()}` },
    el("summary", {}, "Change the limits"),
    form(
      {},
      set,
      el("div", { class: "grid" }, fields),
      row(el("button", { class: "primary" }, "Change"), muted("Empty: the service default.")),
    ),
  );
}

function keyTable(act, keys) {
  const lines = keys.map((one) => ({
    key: one.id,
    cells: [code(one.id), time(one.createdAt), time(one.expiresAt, "until"), button("End…", () => act.endKey(one.id))],
  }));
  const empty = "No HMAC key: deliveries carry the ed25519 signature alone.";
  return [table("HMAC signing keys", KEYS, lines, empty), row(button("New HMAC key", act.rotate))];
}

export function registration(act, callback, changes) {
  const before = changes.find((one) => one.url && one.url !== callback?.url);
  const url = input("url", {
    type: "url",
    required: true,
    maxlength: "2048",
    placeholder: "https://hooks.example.net/fota",
  });
  const hint = "The doctor tries it before anything changes; the old URL stays in the history.";
  return el(
    "details",
    { id: "change", "data-keep": `change-${callback?.revision ?? 0}` },
    el("summary", {}, callback ? "Change or deregister" : "Register a callback"),
    form(
      {},
      (given) => doctor(act, given.url, true),
      field("New URL", url, hint),
      row(el("button", { class: "primary" }, "Check and register")),
    ),
    row(
      before && button(`Back to ${before.url}`, () => doctor(act, before.url, true)),
      callback && button("Deregister…", act.deregister, { class: "danger" }),
    ),
  );
}

// Shows what the doctor finds at a URL; a proposed one can be registered from there.
export async function doctor(act, url, proposed = false) {
  const { checks, result: worst } = await act.check(url);
  const isBad = worst === "fail";
  const found = checks.map((one) =>
    el(
      "li",
      { class: { pass: "ok", warn: "warn", fail: "bad" }[one.result] },
      el("strong", {}, one.check),
      " ",
      one.found,
      one.fix && el("p", {}, one.fix),
    ),
  );
  const register = async () => {
    shown.close();
    await act.register(url);
  };
  const shown = dialog(
    "doctor",
    `Doctor: ${url}`,
    el("ul", { tabindex: "0" }, found),
    paragraph(
      { pass: "Everything works.", warn: "It works; look at the warnings.", fail: "Messages would not arrive." }[worst],
    ),
    row(
      proposed &&
        button(isBad ? "Register it anyway" : "Register it", register, { class: isBad ? "danger" : "primary" }),
      el("button", {}, "Close"),
    ),
  );
}

export function changeTable(act, callback, changes, can) {
  const lines = changes.map((one) => {
    const isOther = one.url && one.url !== callback?.url;
    const again = can("callbacks") && isOther && button("Use again", () => doctor(act, one.url, true));
    return { key: String(one.revision), cells: [time(one.at), one.action, one.url ?? "–", one.actor, again] };
  });
  return table("Changes of the callback, newest first", CHANGES, lines, "No callback was ever registered.");
}
