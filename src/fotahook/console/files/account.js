// One account: what fails first, then its numbers, messages, callback, attempts and limits.
import { accountPath, patch, post, put, query, read, remove } from "./api.js";
import { bars, legend, scaleOf, waterfall } from "./charts.js";
import { instant, milliseconds, time } from "./clock.js";
import { address, button, code, confirm, copy, count, el, field, figures, form, heading, input, muted, notify, pairs, panel, paragraph, plural, row, select, shortId, table } from "./dom.js";
import { pager } from "./pager.js";
import { deliveryState, failureTitle, isFailing, nextTry, outcomeOf, pendingText, stateOf } from "./states.js";

const USUAL_NAME = /^[0-9]{10}-[0-9]{5}$/;
const STATES = [["", "any state"], ["pending", "waiting"], ["delivered", "delivered"], ["dead", "dead"]];
const MESSAGES = [["Key"], ["Type"], ["Message", "wide"], ["State"], ["Accepted", "n"]];
const ATTEMPTS = [["When"], ["Message", "wide"], ["Result"], ["DNS · connect · TLS · first byte", "wide"], ["ms", "n"]];
const CHANGES = [["When"], ["Change"], ["URL", "url"], ["By", "wide"], ["", "n"]];
const KEYS = [["Id"], ["Created"], ["Ends"], ["", "n"]];

export async function showAccount(context, name) {
  const path = accountPath(name);
  const { signal } = context;
  const pages = pager(context);
  let filters = {};
  const load = async () => {
    const account = await read(path, signal);
    if (!account.known) return { account };
    const search = { ...filters, since: instant(filters.since), until: instant(filters.until), cursor: pages.cursor };
    const [stats, messages, attempts, changes, keys] = await Promise.all([
      read(`/v1/stats${query({ minutes: 60, account: name })}`, signal), read(`${path}/messages${query({ ...search, limit: 20 })}`, signal),
      read(`${path}/attempts?limit=10`, signal), read(`${path}/callbacks?limit=20`, signal), read(`${path}/signing-keys`, signal)]);
    return { account, stats, messages, attempts: attempts.attempts, changes: changes.history, keys: keys.signingKeys };
  };
  const act = actions(context, path, name);
  const find = async (given) => {
    filters = given;
    pages.reset();
    await context.refresh();
  };
  const make = (loaded) => draw(name, loaded, { context, act, find, pages });
  return { load, make, wants: (_, event) => event.account === name };
}

function actions(context, path, name) {
  const then = (act, text) => async (...given) => {
    const result = await act(...given);
    if (result === undefined) return;
    await context.refresh();
    notify(text(result), true);
  };
  return {
    pause: then(() => post(`${path}/pause`), () => "Paused: nothing is sent until it is resumed."),
    resume: then(() => post(`${path}/resume`), () => "Resumed."),
    retry: then(() => post(`${path}/resume`), () => "Trying now."),
    check: (url) => post(`${path}/check`, url ? { url } : {}),
    register: then((url) => put(`${path}/callback`, { url }), ({ url }) => `The callback is now ${url}.`),
    deregister: then(async () => {
      const text = ["ThingSpace's messages for this account are kept until a callback is registered again.", `The account ${name} receives nothing until then.`];
      return (await confirm("Deregister the callback?", text, "Deregister", { typed: name })) ? remove(`${path}/callback`) : undefined;
    }, () => "Deregistered: messages wait for a callback."),
    limits: then((limits) => patch(path, { limits }), () => "Limits changed."),
    rotate: then(() => post(`${path}/signing-keys`, {}), ({ secret }) => ["New signing key, shown once: ", code(secret), " ", button("Copy", () => copy(secret, "The key"))]),
    endKey: then(async (id) => ((await confirm("End this signing key?", "Receivers that verify with it refuse deliveries at once.", "End it")) ? remove(`${path}/signing-keys/${encodeURIComponent(id)}`) : undefined), () => "The key has ended."),
    redeliver: then(async (given) => {
      const wanted = { state: given.state, since: instant(given.since) || undefined, until: instant(given.until) || undefined };
      const { count: number } = await post(`${path}/redeliver`, { ...wanted, dryRun: true });
      if (!number) return notify(`No ${given.state} message of this span can be redelivered.`);
      const text = `${plural(number, `${given.state} message`)} will be sent again with the same ids, after those that already wait.`;
      return (await confirm("Redeliver?", text, `Redeliver ${count(number)}`, { kind: "primary" })) ? post(`${path}/redeliver`, { ...wanted, dryRun: false }) : undefined;
    }, (sent) => `${plural(sent.count, "message")} redelivered.`),
  };
}

function draw(name, { account, stats, messages, attempts, changes, keys }, { context, act, find, pages }) {
  const { lane, backlog, callback } = account;
  // A listener's inbox has no callback, and its lane leads to the handlers.
  const isService = context.who.kind === "service";
  const can = (scope) => context.can(scope) && (isService || scope !== "callbacks");
  const warning = !USUAL_NAME.test(name) && el("p", { class: "note warn" }, "Unusual account name: ThingSpace's have ten digits, a dash and five digits. Check it, including its leading zeros.");
  if (!account.known) {
    return [heading(name), warning, panel("Unknown account", paragraph("It never had a callback or a message. Check its name."), can("callbacks") && callbackForms(act, null, changes ?? []))];
  }
  const isPaused = lane.state === "paused";
  return [
    row(heading(el("span", { class: "name" }, name), " ", stateOf(account)), el("span", { class: "space" }),
      can("operate") && button(isPaused ? "Resume" : "Pause", isPaused ? act.resume : act.pause, { "data-key": isPaused ? "resume" : "pause" }),
      can("publish") && callback && el("a", { class: "button", href: address("send", name) }, "Send a test")),
    warning,
    trouble(account, attempts, act, can),
    panel(null,
      figures([
        ["accepted, last hour", count(stats.totals.accepted)], ["delivered", count(stats.totals.delivered)],
        ["waiting", count(backlog.pending), backlog.pending && isFailing(account) ? "bad" : ""],
        ["dead", count(backlog.dead), backlog.dead ? "bad" : ""],
        ["oldest waiting", backlog.oldestAcceptedAt ? time(backlog.oldestAcceptedAt, "age") : "–"],
        ["accepted → delivered p99", stats.latency.p99 == null ? "–" : `${milliseconds(stats.latency.p99)} ms`],
      ]),
      bars(stats.minutes), legend()),
    el("div", { class: isService ? "two" : "" },
      panel("Messages", filterForm(find), table("Messages, newest first", MESSAGES, messages.messages.map(messageLine), messages.cursor ? "No match on this page; go on to older ones." : "No messages."), pages.links(messages.cursor),
        can("operate") && redeliverForm(act)),
      isService && el("div", {},
        panel("Callback",
          pairs([
            ["URL", callback ? code(callback.url) : "none registered"],
            callback && ["since", time(callback.registeredAt), changes[0] && muted(`, by ${changes[0].actor}`)],
            ["at once", `${lane.inFlight} now, at most `, account.limits.inFlight === null ? "the service default" : count(account.limits.inFlight)],
            ["per second", account.limits.perSecond === null ? "no limit" : `at most ${account.limits.perSecond}`],
            ["signing", `ed25519${keys.length ? ` · ${plural(keys.length, "HMAC key")}` : ""}`],
          ]),
          can("callbacks") && callbackForms(act, callback, changes)),
        can("operate") && panel("Limits and keys", limitsForm(act, account.limits), keyTable(act, keys)))),
    panel("Last attempts", attemptTable(attempts)),
    isService && panel("Callback history", changeTable(act, callback, changes, can)),
  ];
}

// What fails, why, what repairs it, and when it is tried again.
function trouble(account, attempts, act, can) {
  const { lane, backlog, callback } = account;
  const failed = attempts.find((one) => one.errorCode);
  const retry = can("operate") && button("Try now", act.retry, { class: "primary" });
  if (isFailing(account) || lane.state === "waiting") {
    const cause = failed?.errorCode === lane.reason || !lane.reason ? failed : null;
    return el("section", { class: "panel trouble" },
      paragraph(el("span", { class: "big" }, failureTitle(lane.reason ?? failed?.errorCode))),
      paragraph(failed?.fix ?? "See the attempts below."),
      paragraph(muted("Next try "), el("strong", {}, nextTry(lane.until)), muted(` · ${plural(lane.failures, "failure")} in a row · ${pendingText(backlog)}`)),
      row(retry, can("operate") && callback && button("Run doctor", () => doctor(act, callback.url)), can("callbacks") && el("a", { class: "button", href: "#callback", click: jump("change") }, "Change URL")),
      cause && el("pre", {}, `POST ${cause.url ?? callback?.url ?? ""}  →  ${cause.errorCode.replaceAll("_", " ")}${cause.phases.total == null ? "" : ` (after ${milliseconds(cause.phases.total)} ms)`}${cause.excerpt ? `\n${cause.excerpt}` : ""}`));
  }
  if (lane.state === "paused") {
    const isGone = lane.reason === "http_410";
    return el("section", { class: `panel ${isGone ? "trouble" : "attention"}` },
      paragraph(el("span", { class: "big" }, isGone ? "The receiver said that it is gone, which paused delivery" : "Delivery is paused")),
      paragraph(isGone ? "Register a new URL, or repair the receiver, then resume." : "An operator paused it. Resume it to go on."), paragraph(muted(`${pendingText(backlog)}; their time to live stands still`)),
      row(can("operate") && button("Resume", act.resume, { class: "primary" })));
  }
  if (lane.state === "held" && backlog.pending) {
    return el("section", { class: "panel attention" }, paragraph(el("span", { class: "big" }, "Messages wait for a callback")),
      paragraph("No callback is registered. Register one, and they are sent in order."), paragraph(muted(pendingText(backlog))));
  }
  return false;
}

const jump = (id) => (event) => {
  event.preventDefault();
  const target = document.getElementById(id);
  target.open = true;
  target.scrollIntoView({ block: "center" });
  target.querySelector("input")?.focus();
};

async function doctor(act, url, proposed = false) {
  const { checks, result: worst } = await act.check(url);
  const dialog = el("dialog", { class: "doctor", close: () => dialog.remove() },
    el("form", { method: "dialog" }, el("h2", {}, `Doctor: ${url}`),
      el("ul", {}, checks.map((one) => el("li", { class: { pass: "ok", warn: "warn", fail: "bad" }[one.result] }, el("strong", {}, one.check), " ", one.found, one.fix && el("p", {}, one.fix)))),
      paragraph({ pass: "Everything works.", warn: "It works; look at the warnings.", fail: "Messages would not arrive." }[worst]),
      row(proposed && button(worst === "fail" ? "Register it anyway" : "Register it", async () => (dialog.close(), act.register(url)), { class: worst === "fail" ? "danger" : "primary" }), el("button", {}, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
}

function callbackForms(act, callback, changes) {
  const before = changes.find((one) => one.url && one.url !== callback?.url);
  return el("details", { id: "change", "data-keep": `change-${callback?.revision ?? 0}` }, el("summary", {}, callback ? "Change or deregister" : "Register a callback"),
    form({}, ({ url }) => doctor(act, url, true), field("New URL", input("url", { type: "url", required: true, maxlength: "2048", placeholder: "https://hooks.example.net/fota" }), "The doctor tries it before anything changes; the old URL stays in the history."), row(el("button", { class: "primary" }, "Check and register"))),
    row(before && button(`Back to ${before.url}`, () => doctor(act, before.url, true)), callback && button("Deregister…", act.deregister, { class: "danger" })));
}

function limitsForm(act, { inFlight, perSecond }) {
  const number = (text) => (text === "" ? null : Number(text));
  return form({ class: "row", "data-keep": `limits-${inFlight}-${perSecond}` }, (given) => act.limits({ inFlight: number(given.inFlight), perSecond: number(given.perSecond) }),
    field("At once", input("inFlight", { type: "number", min: "1", max: "256", value: inFlight ?? "", placeholder: "default" })),
    field("Per second", input("perSecond", { type: "number", min: "0.001", max: "10000", step: "any", value: perSecond ?? "", placeholder: "no limit" })),
    el("button", {}, "Change"));
}

function keyTable(act, keys) {
  const lines = keys.map((one) => ({ key: one.id, cells: [code(one.id), time(one.createdAt), one.expiresAt ? time(one.expiresAt, "until") : "–", button("End…", () => act.endKey(one.id))] }));
  return el("div", { class: "keys" }, table("HMAC signing keys", KEYS, lines, "No HMAC key: deliveries carry the ed25519 signature alone."), row(button("New HMAC key", act.rotate)));
}

function filterForm(find) {
  return form({ class: "filters", "data-keep": "filters", "aria-label": "Filter messages" }, find,
    el("label", { class: "inline" }, el("span", {}, "State"), select("state", STATES)), input("type", { placeholder: "type", "aria-label": "Type" }), input("key", { placeholder: "ordering key", "aria-label": "Ordering key" }),
    input("since", { type: "datetime-local", "aria-label": "Since", title: "accepted since" }), input("until", { type: "datetime-local", "aria-label": "Until", title: "accepted until" }), el("button", {}, "Find"));
}

function redeliverForm(act) {
  return el("details", { "data-keep": "redeliver" }, el("summary", {}, "Redeliver many"),
    form({ class: "filters" }, act.redeliver, el("label", { class: "inline" }, el("span", {}, "State"), select("state", [["dead", "dead"], ["delivered", "delivered"]])),
      input("since", { type: "datetime-local", "aria-label": "Redeliver since" }), input("until", { type: "datetime-local", "aria-label": "Redeliver until" }), el("button", {}, "Count")));
}

const messageLink = (id, text) => el("a", { href: address("message", id), title: id }, text);

function messageLine({ id, type, orderingKey, deliveries, acceptedAt }) {
  return { key: id, cells: [messageLink(id, orderingKey ?? shortId(id)), type ?? muted("no type"), el("code", { title: id }, shortId(id)), deliveryState(deliveries[0]), time(acceptedAt)] };
}

function attemptTable(attempts) {
  const scale = scaleOf(attempts);
  const lines = attempts.map((one) => ({ key: `${one.messageId}-${one.number}`, cells: [time(one.startedAt), messageLink(one.messageId, shortId(one.messageId)), [outcomeOf(one), one.number > 1 && muted(` attempt ${one.number}`)], waterfall(one.phases, scale), one.phases.total == null ? "–" : milliseconds(one.phases.total)] }));
  return table("Last attempts, newest first", ATTEMPTS, lines, "No attempts yet.");
}

function changeTable(act, callback, changes, can) {
  const lines = changes.map((one) => ({ key: String(one.revision), cells: [time(one.at), one.action, one.url ?? "–", one.actor, can("callbacks") && one.url && one.url !== callback?.url && button("Use again", () => doctor(act, one.url, true))] }));
  return table("Changes of the callback, newest first", CHANGES, lines, "No callback was ever registered.");
}
