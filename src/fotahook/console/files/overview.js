// Did the messages arrive, and if not, where: the last hour in numbers, and the accounts in trouble.
import { query, read } from "./api.js";
import { bars, legend, sparkline } from "./charts.js";
import { milliseconds, time } from "./clock.js";
import { address, count, el, figures, heading, link, muted, panel, paragraph, row, table } from "./dom.js";
import { failureTitle, severity, stateOf } from "./states.js";

const SHOWN = 10;
const COLUMNS = [["Account"], ["State"], ["Last hour", "wide"], ["Waiting", "n"], ["Oldest", "n wide"], ["Next try", "n wide"]];

export async function showOverview({ signal, who }) {
  const load = async () => {
    const [stats, page] = await Promise.all([read("/v1/stats?minutes=60", signal), read(`/v1/accounts${query({ state: "trouble", limit: SHOWN })}`, signal)]);
    const order = { bad: 0, warn: 1 };
    const accounts = page.accounts.toSorted((one, other) => (order[severity(one)] ?? 2) - (order[severity(other)] ?? 2) || other.backlog.pending - one.backlog.pending);
    const minutes = await Promise.all(accounts.map(({ account }) => read(`/v1/stats${query({ minutes: 60, account })}`, signal)));
    return { stats, accounts, minutes: minutes.map((one) => one.minutes), more: page.cursor !== null };
  };
  return { load, make: (loaded) => make(loaded, who), wants: () => true };
}

function make({ stats, accounts, minutes, more }, who) {
  const { totals, backlog, latency } = stats;
  const known = Object.entries(stats.accounts).some(([, number]) => number > 0);
  if (!known) return [heading("Overview"), who.kind === "listener" ? emptyInbox() : emptyStore()];
  return [
    heading("Overview"),
    verdict(stats, accounts),
    panel("The last hour",
      figures([
        ["accepted", count(totals.accepted)],
        ["delivered", count(totals.delivered)],
        ["failed attempts", count(totals.failed), totals.failed ? "bad" : ""],
        ["dead", count(totals.dead), totals.dead ? "bad" : ""],
        ["waiting now", count(backlog.pending)],
        ["oldest waiting", backlog.oldestAcceptedAt ? time(backlog.oldestAcceptedAt, "age") : "–"],
        ["delivered after, p50 / p99", latency.p50 == null ? "–" : `${milliseconds(latency.p50)} / ${milliseconds(latency.p99)} ms`],
      ]),
      bars(stats.minutes), legend()),
    panel("Accounts in trouble",
      table("Accounts in trouble", COLUMNS, accounts.map((one, n) => line(one, minutes[n])), "No account needs attention."),
      more && paragraph(link(`All ${count(stats.accounts.trouble)} accounts in trouble`, "accounts", "trouble"))),
  ];
}

function verdict({ accounts, backlog }, listed) {
  const worst = listed.find((one) => severity(one) === "bad");
  if (worst) {
    return el("section", { class: "panel trouble" },
      paragraph(el("span", { class: "big" }, accounts.trouble === 1 ? "One account needs attention" : `${count(accounts.trouble)} accounts need attention`)),
      paragraph(link(worst.account, "account", worst.account), ": ", worst.lane.reason ? failureTitle(worst.lane.reason) : worst.backlog.dead ? "messages were given up" : "its messages wait for a callback", "."),
      paragraph(muted("Nothing is lost: ", count(backlog.pending), backlog.pending === 1 ? " message waits." : " messages wait.")));
  }
  return el("section", { class: "panel fine" }, paragraph(el("span", { class: "big" }, "Messages arrive")), paragraph(muted(`${count(accounts.open)} accounts deliver, none fails.`)));
}

function line(account, minutes) {
  const { lane, backlog } = account;
  return { key: account.account, cells: [link(account.account, "account", account.account), stateOf(account), sparkline(minutes), count(backlog.pending), time(backlog.oldestAcceptedAt, "age"), lane.until ? time(lane.until, "until") : "–"] };
}

function emptyStore() {
  return panel("Nothing is here yet",
    paragraph("An account appears with its first callback or message. Three commands make one:"),
    el("pre", {}, [
      "fotahook listen --port 8081",
      `fotahook callbacks register 0000123456-00001 http://127.0.0.1:8081/ --base-url ${location.origin} --dev`,
      `fotahook simulate 0000123456-00001 --devices 20 --base-url ${location.origin} --dev`,
    ].join("\n")),
    paragraph(muted("--dev stands for the credentials of a service that runs with --dev. Or "), el("a", { href: address("send") }, "send a test message"), muted(" from here.")));
}

const emptyInbox = () => panel("The inbox is empty", paragraph("A message appears here as soon as this listener has received one."), row(el("a", { href: address("live") }, "Watch for it")));
