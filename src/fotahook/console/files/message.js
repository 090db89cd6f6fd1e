// One message: its status once, its attempts, its body, and redelivery.
import { accountPath, post, read, readText, segment } from "./api.js";
import { scaleOf, waterfall } from "./charts.js";
import { milliseconds, time } from "./clock.js";
import {
  button,
  code,
  copy,
  count,
  el,
  heading,
  link,
  muted,
  notify,
  pairs,
  panel,
  paragraph,
  pre,
  row,
  table,
} from "./dom.js";
import { banner, deliveryState, failureTitle, outcomeOf } from "./states.js";

const COLUMNS = [["#"], ["When"], ["DNS · connect · TLS · first byte"], ["ms", "n"], ["Result", "result"]];
const SECRET_NOTE = "# The signature is not part of it: fotahook makes one for each attempt.";
const TITLES = {
  delivered: "Delivered",
  expired: "Expired before the receiver accepted it",
  paused: "The account is paused",
  gone: "The account is paused: its receiver is gone",
  held: "No callback is registered",
  waiting: "The receiver fails, so this message waits",
  behind: "Another message of the same key goes first",
  scheduled: "Waits for its next attempt",
  due: "About to be sent",
};
// What resuming the account changes.
const RESUMED = { waiting: "Try now", paused: "Resume the account", gone: "Resume the account" };

export async function showMessage(context, id) {
  const { signal } = context;
  const path = `/v1/messages/${segment(id)}`;
  let body = null;
  const load = async () => {
    const [message, why, { attempts }] = await Promise.all([
      read(path, signal),
      read(`${path}/why`, signal),
      read(`${path}/attempts`, signal),
    ]);
    return { message, why, attempts, body };
  };
  const act = {
    show: async () => {
      body = await readText(`${path}/body`, signal);
      await context.refresh();
    },
    redeliver: (asNew) => async () => {
      const sent = await post(`${path}/redeliver`, { asNew });
      await context.refresh();
      notify(sent.id === id ? "Redelivered." : ["Redelivered as ", link(sent.id, "message", sent.id), "."], true);
    },
    resume: (account) => async () => {
      await post(`${accountPath(account)}/resume`);
      await context.refresh();
      notify("Trying now.", true);
    },
    curl: async () => {
      const { message, attempts } = await load();
      await copy(command(message, attempts.at(-1), await readText(`${path}/body`, signal)), "The command");
    },
  };
  return { load, make: (loaded) => draw(id, loaded, context, act), wants: (_, event) => event.id === id };
}

function draw(id, { message, why, attempts, body }, context, act) {
  const canRead = context.can("bodies");
  return [
    row(
      heading(el("span", { class: "name" }, message.type ?? "Message"), " ", deliveryState(message.deliveries[0])),
      el("span", { class: "space" }),
      button("Copy id", () => copy(id, "The id")),
      canRead && button("Copy as curl", act.curl),
      context.can("operate") &&
        why.state !== "pending" && [
          button("Redeliver", act.redeliver(false), { class: "primary" }),
          button("Redeliver as new", act.redeliver(true), {
            title: "With a new id, so that receivers take it for another message",
          }),
        ],
    ),
    status(message, why, attempts.at(-1), context, act),
    panel("Attempts", attemptTable(message, attempts)),
    panel(
      "Body",
      canRead
        ? bodyOf(body, act.show)
        : paragraph(muted("This client may not read bodies: it needs the scope bodies.")),
    ),
    panel(
      "Facts",
      pairs(facts(id, message)),
      el(
        "details",
        { "data-key": "technical" },
        el("summary", {}, "Technical facts"),
        pairs([
          ["size", `${count(message.size)} bytes`],
          ["SHA-256", code(message.sha256)],
        ]),
      ),
    ),
  ];
}

// What holds the message up, or what became of it; the last failure and its repair go first.
function status(message, why, last, context, act) {
  const [{ code: first }] = why.reasons;
  const failed = why.state !== "delivered" && last?.errorCode ? last : null;
  const resumes = context.can("operate") && why.reasons.find(({ code: name }) => RESUMED[name]);
  const kind = { delivered: "ok", dead: "bad", pending: failed ? "bad" : "warn" }[why.state];
  const reasons = why.reasons.filter(({ code: name }) => !failed || name !== "last_failure");
  return banner(
    kind,
    failed ? failureTitle(failed.errorCode) : (TITLES[first] ?? "Given up"),
    failed?.fix && paragraph(failed.fix),
    reasons.map(({ code: name, text, until }) =>
      el("p", { class: "muted", "data-code": name }, text, until && [" ", el("strong", {}, time(until, "until"))]),
    ),
    row(
      resumes && button(RESUMED[resumes.code], act.resume(message.account), { class: "primary" }),
      why.state !== "delivered" &&
        el("a", { class: "button", href: link("", "account", message.account).hash }, "See the account"),
    ),
  );
}

const facts = (id, message) => [
  ["id", code(id)],
  ["account", link(message.account, "account", message.account)],
  ["ordering key", message.orderingKey ?? "none"],
  ["accepted", time(message.acceptedAt), muted(" · "), time(message.acceptedAt, "exact")],
  // A service delivers to one receiver, whose state the heading says; a listener also forwards.
  ...message.deliveries.map((one) => {
    const isOnly = one.lane === message.account;
    const state = [
      !isOnly && [deliveryState(one), " "],
      one.due && ["due ", time(one.due, "until")],
      one.expiresAt && [", expires ", time(one.expiresAt, "until")],
    ];
    return (!isOnly || one.due) && [isOnly ? "delivery" : `to ${one.lane}`, state];
  }),
];

function attemptTable(message, attempts) {
  const scale = scaleOf(attempts);
  const lines = attempts.toReversed().map((one) => ({
    key: String(one.number),
    cells: [
      count(one.number),
      time(one.startedAt),
      waterfall(one, scale),
      one.phases.total == null ? "–" : milliseconds(one.phases.total),
      result(message, one, one === attempts.at(-1)),
    ],
  }));
  return table("Attempts, newest first", COLUMNS, lines, "No attempts yet.");
}

function result(message, one, isLast) {
  const request = one.url && [
    `POST ${one.url}`,
    ...sentHeaders(message, one),
    "webhook-signature: made for each attempt, and not kept",
  ];
  const answer = [one.httpStatus && `HTTP ${one.httpStatus}`, one.excerpt || (!one.httpStatus && "no answer")].filter(
    Boolean,
  );
  return [
    outcomeOf(one),
    one.resent && muted(" sent twice: a reused connection was closed"),
    !isLast && one.fix && el("p", { class: "fix" }, one.fix),
    (request || one.excerpt) &&
      el(
        "details",
        { "data-key": `attempt-${one.number}`, open: isLast && Boolean(one.errorCode) },
        el("summary", {}, "Request and answer"),
        request && pre(request.join("\n"), "request"),
        pre(answer.join("\n")),
      ),
  ];
}

function bodyOf(text, show) {
  if (text === null)
    return row(button("Show body", show), muted("It may hold what not everybody who sees the page should read."));
  return [
    pre(pretty(text)),
    el("details", { "data-key": "raw" }, el("summary", {}, "Raw, byte for byte"), pre(text)),
    row(button("Copy body", () => copy(text, "The body"))),
  ];
}

function pretty(text) {
  try {
    // Numbers that JavaScript cannot hold stay as they are sent.
    return /\d{16}/.test(text.replace(/"(?:[^"\\]|\\.)*"/g, "")) ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const sentHeaders = ({ id, account }, { number, startedAt }) => [
  "Content-Type: application/json",
  `webhook-id: ${id}`,
  `webhook-timestamp: ${Math.floor(Date.parse(startedAt) / 1000)}`,
  `Fotahook-Account: ${account}`,
  `Fotahook-Attempt: ${number}`,
];

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function command(message, last, body) {
  const { url, ...attempt } = last ?? {
    url: "https://receiver.example.net/",
    number: 1,
    startedAt: new Date().toISOString(),
  };
  const headers = sentHeaders(message, attempt).map((one) => `  -H ${quoted(one)}`);
  return `${SECRET_NOTE}\n${[`curl ${quoted(url)}`, ...headers, `  --data-binary ${quoted(body)}`].join(" \\\n")}`;
}
