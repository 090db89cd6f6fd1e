// The list of accounts by state.
import { query, read } from "./api.js";
import { time } from "./clock.js";
import { address, count, el, form, heading, input, link, panel, row, table } from "./dom.js";
import { pager } from "./pager.js";
import { stateOf } from "./states.js";

const TABS = [["trouble", "Needs attention"], ["all", "All"], ["open", "Open"], ["waiting", "Waiting"], ["held", "No callback"], ["paused", "Paused"]];
const COLUMNS = [["Account"], ["State"], ["Waiting", "n"], ["Dead", "n"], ["Oldest", "n wide"], ["Callback", "wide url"]];
const EMPTY = { trouble: "No account needs attention.", all: "There are no accounts yet. An account appears with its first callback or message." };

export async function showAccounts(context, state = "trouble") {
  const { signal } = context;
  const pages = pager(context);
  const load = async () => {
    const wanted = state === "all" ? "" : state;
    const [page, stats] = await Promise.all([read(`/v1/accounts${query({ state: wanted, cursor: pages.cursor })}`, signal), read("/v1/stats?minutes=1", signal)]);
    return { page, counts: stats.accounts };
  };
  const make = ({ page, counts }) => [
    row(heading("Accounts"), el("span", { class: "space" }), go()),
    el("nav", { class: "tabs", "aria-label": "Accounts by state" }, TABS.map(([name, text]) =>
      el("a", { href: address("accounts", name), "aria-current": name === state && "page" }, text, " ", el("i", {}, count(counts[name] ?? 0))))),
    panel(null, table("Accounts", COLUMNS, page.accounts.map(line), EMPTY[state] ?? "No account is in this state."), pages.links(page.cursor)),
  ];
  return { load, make, wants: (name) => name !== "message.accepted" };
}

const go = () => form({ class: "row", "data-keep": "go" }, ({ account }) => (location.hash = address("account", account)),
  input("account", { "aria-label": "Go to account", maxlength: "64", required: true, placeholder: "0000123456-00001" }), el("button", {}, "Show"));

function line(one) {
  const { account, backlog, callback } = one;
  return { key: account, cells: [link(account, "account", account), stateOf(one), count(backlog.pending), count(backlog.dead), time(backlog.oldestAcceptedAt, "age"), callback?.url ?? "none"] };
}
