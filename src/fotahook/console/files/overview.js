// Did the messages arrive, and if not, where: the last hour in numbers, and the accounts in trouble.
import { query, read } from "./api.js";
import { bars, legend, sparkline } from "./charts.js";
import { latency, time } from "./clock.js";
import { address, count, el, figures, heading, link, muted, panel, paragraph, plural, pre, row, table } from "./dom.js";
import { backlogText, banner, causeOf, failureTitle, severity, stateOf } from "./states.js";

const READ = 200;
const SHOWN = 10;
const COLUMNS = [
  ["Account"],
  ["State"],
  ["Cause"],
  ["Last hour", "wide"],
  ["Waiting", "n"],
  ["Dead", "n"],
  ["Oldest", "n"],
  ["Next try", "n"],
];
const ORDER = { bad: 0, warn: 1 };

export async function showOverview({ signal, who }) {
  const load = async () => {
    const [stats, page] = await Promise.all([
      read("/v1/stats?minutes=60", signal),
      read(`/v1/accounts${query({ state: "trouble", limit: READ })}`, signal),
    ]);
    const weight = (one) => one.backlog.pending + one.backlog.dead;
    const worstFirst = (one, other) =>
      (ORDER[severity(one)] ?? 2) - (ORDER[severity(other)] ?? 2) || weight(other) - weight(one);
    const accounts = page.accounts.toSorted(worstFirst).slice(0, SHOWN);
    const each = accounts.map(({ account }) => read(`/v1/stats${query({ minutes: 60, account })}`, signal));
    return { stats, accounts, minutes: (await Promise.all(each)).map((one) => one.minutes) };
  };
  return { load, make: (loaded) => make(loaded, who), wants: () => true };
}

function make({ stats, accounts, minutes }, who) {
  const { totals, backlog } = stats;
  const known = Object.entries(stats.accounts).some(([, number]) => number > 0);
  if (!known) return [heading("Overview"), who.kind === "listener" ? emptyInbox() : emptyStore()];
  return [
    heading("Overview"),
    verdict(stats, accounts),
    panel(
      "The last hour",
      figures([
        ["accepted", count(totals.accepted)],
        ["delivered", count(totals.delivered)],
        ["failed attempts", count(totals.failed), totals.failed ? "bad" : ""],
        ["dead", count(totals.dead), totals.dead ? "bad" : ""],
        ["waiting now", count(backlog.pending)],
        ["oldest waiting", time(backlog.oldestAcceptedAt, "age")],
        ["delivered after, p50 / p99", `${latency(stats.latency.p50)} / ${latency(stats.latency.p99)}`],
      ]),
      bars("The last hour by minute", stats.minutes),
      legend(),
    ),
    panel(
      "Accounts in trouble",
      table(
        "Accounts in trouble",
        COLUMNS,
        accounts.map((one, n) => line(one, minutes[n])),
        "No account needs attention.",
      ),
      stats.accounts.trouble > accounts.length &&
        paragraph(link(`All ${count(stats.accounts.trouble)} accounts in trouble`, "accounts", "trouble")),
    ),
  ];
}

function verdict({ accounts, backlog }, [worst]) {
  if (!worst) {
    return banner(
      "ok",
      "Messages arrive",
      paragraph(muted(`${plural(accounts.open, "account")} delivering, none fails.`)),
    );
  }
  const { lane, account } = worst;
  const cause = lane.reason ? failureTitle(lane.reason) : causeOf(worst);
  return banner(
    severity(worst),
    accounts.trouble === 1 ? "One account needs attention" : `${count(accounts.trouble)} accounts need attention`,
    paragraph(accounts.trouble > 1 && "The worst: ", link(account, "account", account), ` – ${cause}.`),
    paragraph(muted(`In all, ${backlogText(backlog)}.`)),
    row(el("a", { class: "button primary", href: address("account", account) }, "See what to do")),
  );
}

function line(account, minutes) {
  const { backlog, lane } = account;
  return {
    key: account.account,
    cells: [
      link(account.account, "account", account.account),
      stateOf(account),
      causeOf(account),
      sparkline(minutes),
      count(backlog.pending),
      count(backlog.dead),
      time(backlog.oldestAcceptedAt, "age"),
      time(lane.until, "until"),
    ],
  };
}

function emptyStore() {
  const service = `--base-url ${location.origin} --dev`;
  return panel(
    "Nothing is here yet",
    paragraph("An account appears with its first callback or message. Three commands make one:"),
    pre(
      [
        "fotahook listen --port 8081",
        `fotahook callbacks register 0000123456-00001 http://127.0.0.1:8081/ ${service}`,
        `fotahook simulate 0000123456-00001 --devices 20 ${service}`,
      ].join("\n"),
    ),
    paragraph(
      muted("--dev stands for the credentials of a service that runs with --dev. Or "),
      el("a", { href: address("send") }, "send a test message"),
      muted(" from here."),
    ),
  );
}

const emptyInbox = () =>
  panel(
    "The inbox is empty",
    paragraph("A message appears here as soon as this listener has received one."),
    row(el("a", { class: "button", href: address("live") }, "Watch for it")),
  );
