// One account: what fails first, then its numbers, messages, callback, attempts and limits.
import { accountPath, post, query, read } from "./api.js";
import { callbackActions, callbackPanels, changeTable, doctor, registration } from "./callback.js";
import { bars, legend, scaleOf, waterfall } from "./charts.js";
import { instant, latency, milliseconds, time } from "./clock.js";
import {
  address,
  button,
  confirm,
  count,
  el,
  field,
  figures,
  form,
  heading,
  input,
  muted,
  notify,
  panel,
  paragraph,
  plural,
  pre,
  row,
  select,
  shortId,
  table,
} from "./dom.js";
import { pager } from "./pager.js";
import {
  backlogText,
  banner,
  deliveryState,
  errorText,
  failureTitle,
  isFailing,
  nextTry,
  outcomeOf,
  severity,
  stateOf,
} from "./states.js";

const USUAL_NAME = /^[0-9]{10}-[0-9]{5}$/;
const SLOW_MILLISECONDS = 1000;
const STATES = [
  ["", "any state"],
  ["pending", "waiting"],
  ["delivered", "delivered"],
  ["dead", "dead"],
];
const MESSAGES = [["Device or key"], ["Type", "under"], ["State"], ["Accepted", "end"]];
const ATTEMPTS = [["When"], ["Message"], ["Result"], ["DNS · connect · TLS · first byte"], ["ms", "n"]];

export async function showAccount(context, name) {
  const path = accountPath(name);
  const { signal } = context;
  const pages = pager(context);
  let filters = {};
  const load = async () => {
    const account = await read(path, signal);
    if (!account.known) return { account };
    const span = { since: instant(filters.since), until: instant(filters.until) };
    const [stats, messages, { attempts }, { history }, { signingKeys }] = await Promise.all([
      read(`/v1/stats${query({ minutes: 60, account: name })}`, signal),
      read(`${path}/messages${query({ ...filters, ...span, cursor: pages.cursor, limit: 20 })}`, signal),
      read(`${path}/attempts?limit=10`, signal),
      read(`${path}/callbacks?limit=20`, signal),
      read(`${path}/signing-keys`, signal),
    ]);
    return { account, stats, messages, attempts, changes: history, keys: signingKeys };
  };
  const find = async (given) => {
    filters = given;
    pages.reset();
    await context.refresh();
  };
  const act = actions(context, path, name);
  const make = (loaded) => draw(name, loaded, { context, act, find, pages });
  return { load, make, wants: (_, event) => event.account === name };
}

function actions(context, path, name) {
  // What an action returns is what was done; undefined for nothing.
  const then =
    (act, text) =>
    async (...given) => {
      const result = await act(...given);
      if (result === undefined) return;
      await context.refresh();
      notify(text(result), true);
    };
  return {
    ...callbackActions(then, path, name),
    pause: then(
      () => post(`${path}/pause`),
      () => "Paused: nothing is sent until it is resumed.",
    ),
    resume: then(
      () => post(`${path}/resume`),
      () => "Resumed.",
    ),
    retry: then(
      () => post(`${path}/resume`),
      () => "Trying now.",
    ),
    redeliver: then(
      async ({ state, since, until }) => {
        const wanted = { state, since: instant(since) || undefined, until: instant(until) || undefined };
        const { count: number } = await post(`${path}/redeliver`, { ...wanted, dryRun: true });
        if (!number) return notify(`No ${state} message of this span can be redelivered.`);
        const what = plural(number, `${state} message`);
        const text = `${what} will be sent again with the same ids, after those that already wait.`;
        const isMeant = await confirm("Redeliver?", text, `Redeliver ${count(number)}`, { kind: "primary" });
        return isMeant ? post(`${path}/redeliver`, { ...wanted, dryRun: false }) : undefined;
      },
      (sent) => `${plural(sent.count, "message")} redelivered.`,
    ),
  };
}

function draw(name, { account, stats, messages, attempts, changes, keys }, { context, act, find, pages }) {
  // A listener's inbox has no callback, and its lane leads to the handlers.
  const isService = context.who.kind === "service";
  const can = (scope) => context.can(scope) && (isService || scope !== "callbacks");
  const warning =
    !USUAL_NAME.test(name) &&
    el(
      "p",
      { class: "note warn" },
      "Unusual account name: ThingSpace's have ten digits, a dash and five digits. ",
      "Check it, including its leading zeros.",
    );
  if (!account.known) {
    const text = "It never had a callback or a message. Check its name.";
    return [
      heading(name),
      warning,
      panel("Unknown account", paragraph(text), can("callbacks") && registration(act, null, [])),
    ];
  }
  const { lane, backlog } = account;
  const isPaused = lane.state === "paused";
  return [
    row(
      heading(el("span", { class: "name" }, name), " ", stateOf(account)),
      el("span", { class: "space" }),
      can("operate") && button(isPaused ? "Resume" : "Pause", isPaused ? act.resume : act.pause),
      can("publish") && account.callback && el("a", { class: "button", href: address("send", name) }, "Send a test"),
    ),
    warning,
    trouble(account, attempts, act, can),
    panel(
      null,
      figures([
        ["accepted, last hour", count(stats.totals.accepted)],
        ["delivered", count(stats.totals.delivered)],
        ["waiting", count(backlog.pending), backlog.pending && isFailing(account) ? "bad" : ""],
        ["dead", count(backlog.dead), backlog.dead ? "bad" : ""],
        ["oldest waiting", time(backlog.oldestAcceptedAt, "age")],
        ["accepted → delivered p99", latency(stats.latency.p99)],
      ]),
      bars("The last hour by minute", stats.minutes),
      legend(),
    ),
    el(
      "div",
      { class: isService ? "two" : "" },
      panel(
        "Messages",
        filterForm(find),
        table(
          "Messages, newest first",
          MESSAGES,
          messages.messages.map(messageLine),
          messages.cursor ? "No match on this page; go on to older ones." : "No messages.",
        ),
        pages.links(messages.cursor),
        can("operate") && redeliverForm(act),
      ),
      isService && el("div", {}, callbackPanels(act, can, { account, defaults: context.who.limits, changes, keys })),
    ),
    panel("Last attempts", attemptTable(attempts)),
    isService && panel("Callback history", changeTable(act, account.callback, changes, can)),
  ];
}

// What fails, why, what repairs it, and when it is tried again.
function trouble(account, attempts, act, can) {
  const { lane, backlog } = account;
  const kind = severity(account);
  const failed = attempts.find((one) => one.errorCode);
  if (isFailing(account)) return failing(account, kind, failed, act, can);
  if (lane.state === "paused") {
    const isGone = lane.reason === "http_410";
    return banner(
      kind,
      isGone ? "The receiver said that it is gone, which paused delivery" : "Delivery is paused",
      paragraph(
        isGone
          ? "Register a new URL, or repair the receiver, then resume."
          : "An operator paused it. Resume it to go on.",
      ),
      paragraph(muted(`${backlogText(backlog)}; time to live stands still`)),
      row(can("operate") && button("Resume", act.resume, { class: "primary" }), isGone && changeLink(can)),
    );
  }
  if (lane.state === "held" && backlog.pending) {
    return banner(
      kind,
      "Messages wait for a callback",
      paragraph("No callback is registered. Register one, and they are sent in order."),
      paragraph(muted(backlogText(backlog))),
      row(changeLink(can, "Register a callback")),
    );
  }
  if (backlog.dead) {
    const isOne = backlog.dead === 1;
    return banner(
      kind,
      `${plural(backlog.dead, "message")} ${isOne ? "was" : "were"} given up`,
      failed && paragraph(`${failureTitle(failed.errorCode)}. `, failed.fix),
      paragraph(
        muted(`${isOne ? "It is" : "They are"} kept. Once the cause is repaired, redeliver ${isOne ? "it" : "them"}.`),
      ),
      row(
        can("operate") && button("Redeliver…", () => act.redeliver({ state: "dead" }), { class: "primary" }),
        doctorButton(account, act, can),
      ),
      failed && exchange(failed),
    );
  }
  const [last] = attempts;
  if (backlog.pending && last?.errorCode) {
    return banner(
      "warn",
      failureTitle(last.errorCode),
      paragraph(last.fix),
      paragraph(muted(`Other messages arrive; this one is tried again by itself. ${capital(backlogText(backlog))}.`)),
      row(
        el("a", { class: "button", href: address("message", last.messageId) }, "See the message"),
        doctorButton(account, act, can),
      ),
      exchange(last),
    );
  }
  return slow(account, attempts, act, can);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function failing(account, kind, failed, act, can) {
  const { lane, backlog } = account;
  const code = lane.reason ?? failed?.errorCode;
  return banner(
    kind,
    failureTitle(code),
    paragraph(failed?.fix ?? "See the attempts below."),
    paragraph(
      muted("Next try "),
      el("strong", {}, nextTry(lane.until)),
      muted(` · ${plural(lane.failures, "failure")} in a row · ${backlogText(backlog)}`),
    ),
    row(
      can("operate") && button("Try now", act.retry, { class: "primary" }),
      doctorButton(account, act, can),
      changeLink(can),
    ),
    failed?.errorCode === code && exchange(failed),
  );
}

// The receiver delivers, but the fleet's messages may come faster than it answers.
function slow(account, attempts, act, can) {
  const times = attempts
    .filter((one) => !one.errorCode)
    .map((one) => one.phases.total ?? 0)
    .sort((one, other) => one - other);
  const middle = times[times.length >> 1] ?? 0;
  return (
    middle >= SLOW_MILLISECONDS &&
    banner(
      "warn",
      `The receiver answers slowly: ${latency(middle)}`,
      paragraph(
        "Let it store the message and answer at once, and work on it afterwards. ",
        "An attempt without an answer in time counts as failed, and the message is sent again.",
      ),
      row(doctorButton(account, act, can)),
    )
  );
}

const doctorButton = ({ callback }, act, can) =>
  can("operate") && callback && button("Run doctor", () => doctor(act, callback.url));

const changeLink = (can, text = "Change URL") =>
  can("callbacks") && el("a", { class: "button", href: "#callback", click: openChange }, text);

function openChange(event) {
  event.preventDefault();
  const target = document.getElementById("change");
  target.open = true;
  target.scrollIntoView({ block: "center" });
  target.querySelector("input").focus();
}

function exchange({ url, errorCode, phases, excerpt }) {
  const request = url ? `POST ${url}  →  ` : "";
  return pre(`${request}${errorText(errorCode)} (after ${latency(phases.total)})\n${excerpt ?? ""}`.trimEnd());
}

const span = () => [
  field("Since", input("since", { type: "datetime-local" })),
  field("Until", input("until", { type: "datetime-local" })),
];

const filterForm = (find) =>
  form(
    { class: "filters three", "data-keep": "filters", "aria-label": "Filter messages" },
    find,
    field("State", select("state", STATES)),
    field("Type", input("type")),
    field("Key", input("key")),
    span(),
    el("button", {}, "Find"),
  );

const redeliverForm = (act) =>
  el(
    "details",
    { "data-keep": "redeliver" },
    el("summary", {}, "Redeliver many"),
    form(
      { class: "filters three", "aria-label": "Redeliver" },
      act.redeliver,
      field("State", select("state", STATES.slice(2).reverse())),
      span(),
      el("button", {}, "Count"),
    ),
  );

const messageLink = (id, text) => el("a", { href: address("message", id), title: id }, text);

const messageLine = ({ id, type, orderingKey, deliveries, acceptedAt }) => ({
  key: id,
  cells: [
    messageLink(id, orderingKey ?? shortId(id)),
    type ?? muted("no type"),
    deliveryState(deliveries[0]),
    time(acceptedAt),
  ],
});

function attemptTable(attempts) {
  const scale = scaleOf(attempts);
  const lines = attempts.map((one) => ({
    key: `${one.messageId}-${one.number}`,
    cells: [
      time(one.startedAt),
      messageLink(one.messageId, shortId(one.messageId)),
      [outcomeOf(one), one.number > 1 && muted(` attempt ${one.number}`)],
      waterfall(one, scale),
      one.phases.total == null ? "–" : milliseconds(one.phases.total),
    ],
  }));
  return table("Last attempts, newest first", ATTEMPTS, lines, "No attempts yet.");
}
