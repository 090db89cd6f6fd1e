// The list of accounts by state, and the last hour in numbers.
import { query, read } from "./api.js";
import { address, atMostEvery, badge, count, el, field, form, link, notify, pages, table, time } from "./dom.js";
import { follow } from "./events.js";
import { stats } from "./stats.js";

const STATES = [["trouble", "Needs attention"], ["all", "All"], ["open", "Open"], ["waiting", "Waiting"], ["held", "Held"], ["paused", "Paused"]];
const HEADER = ["Account", "Lane", "Pending", "Dead", "Oldest message", "Callback"];
const REFRESH_MILLISECONDS = 2000;
const EMPTY = {
  trouble: "No account needs attention.",
  all: "There are no accounts yet. An account appears with its first callback or message.",
};

export async function showAccounts(main, signal, state = "trouble") {
  const tabs = STATES.map(([name, text]) => el("a", { href: address("accounts", name), "aria-current": name === state && "page" }, text));
  const list = el("div");
  main.append(
    el("h2", { tabindex: "-1" }, "Accounts"),
    await stats(signal),
    form({ class: "line" }, ({ account }) => (location.hash = address("account", account)),
      field("Go to account", el("input", { name: "account", maxlength: "64", required: true, placeholder: "0000123456-00001" })), el("button", {}, "Show")),
    el("nav", { class: "tabs", "aria-label": "Accounts by state" }, tabs),
    list,
  );
  const empty = EMPTY[state] ?? `No account is ${state}.`;
  const load = (cursor) => read(`/v1/accounts${query({ state: state === "all" ? "" : state, cursor })}`, signal);
  const reload = await pages(list, load, (page) => table("Accounts", HEADER, page.accounts.map(row), empty));
  const soon = atMostEvery(REFRESH_MILLISECONDS, reload);
  follow("/v1/events", signal, (name) => name === "lane.changed" && soon(), soon, notify);
}

function row({ account, lane, backlog, callback }) {
  return [
    link(account, "account", account),
    [badge(lane.state), " ", lane.reason, lane.until && [" until ", time(lane.until)]],
    count(backlog.pending),
    count(backlog.dead),
    time(backlog.oldestAcceptedAt),
    callback?.url ?? "none",
  ];
}
