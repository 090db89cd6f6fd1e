// All accounts, those in trouble first, and how much happened in the last hour.
import { query, read } from "./api.js";
import { address, atMostEvery, badge, count, el, field, form, link, moment, pages, table, tell } from "./dom.js";
import { follow } from "./events.js";
import { stats } from "./stats.js";

const STATES = [["trouble", "In trouble"], ["all", "All"], ["open", "Open"], ["waiting", "Waiting"], ["held", "Held"], ["paused", "Paused"]];
const HEADER = ["Account", "Lane", "Pending", "Dead", "Oldest", "Callback"];
const REFRESH_MILLISECONDS = 2000;
const SAID = {
  trouble: "No account is in trouble.",
  all: "There are no accounts yet: one appears with its first callback or message.",
};

export async function showAccounts(main, signal, state = "trouble") {
  const tabs = STATES.map(([name, text]) => el("a", { href: address("accounts", name), "aria-current": name === state && "page" }, text));
  const list = el("div");
  main.append(
    el("h2", { tabindex: "-1" }, "Accounts"),
    await stats(signal),
    form({ class: "line" }, ({ account }) => (location.hash = address("account", account)),
      field("Go to an account", el("input", { name: "account", maxlength: "64", required: true, placeholder: "0000123456-00001" })), el("button", {}, "Show")),
    el("nav", { class: "tabs", "aria-label": "Accounts by state" }, tabs),
    list,
  );
  const empty = SAID[state] ?? `No account is ${state}.`;
  const load = (cursor) => read(`/v1/accounts${query({ state: state === "all" ? "" : state, cursor })}`, signal);
  const reload = await pages(list, load, (page) => table("Accounts", HEADER, page.accounts.map(row), empty));
  const soon = atMostEvery(REFRESH_MILLISECONDS, reload);
  follow("/v1/events", signal, (name) => name === "lane.changed" && soon(), soon, tell);
}

function row({ account, lane, backlog, callback }) {
  return [
    link(account, "account", account),
    [badge(lane.state), " ", lane.reason, lane.until && [" until ", moment(lane.until)]],
    count(backlog.pending),
    count(backlog.dead),
    moment(backlog.oldestAcceptedAt),
    callback?.url ?? "none",
  ];
}
