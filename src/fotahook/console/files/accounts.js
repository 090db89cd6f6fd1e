// The list of accounts by state.
import { query, read } from "./api.js";
import { time } from "./clock.js";
import { address, count, el, form, heading, input, link, panel, row, table, tabs } from "./dom.js";
import { pager } from "./pager.js";
import { causeOf, stateOf } from "./states.js";

const TABS = [
  ["trouble", "Needs attention"],
  ["all", "All"],
  ["open", "Open"],
  ["waiting", "Waiting"],
  ["held", "No callback"],
  ["paused", "Paused"],
];
const COLUMNS = [
  ["Account"],
  ["State"],
  ["Cause"],
  ["Waiting", "n"],
  ["Dead", "n"],
  ["Oldest", "n"],
  ["Callback", "url"],
];
const EMPTY = {
  trouble: "No account needs attention.",
  all: "There are no accounts yet. An account appears with its first callback or message.",
};

export async function showAccounts(context, state = "trouble") {
  const { signal } = context;
  const pages = pager(context);
  const load = async () => {
    const [page, { accounts }] = await Promise.all([
      read(`/v1/accounts${query({ state: state === "all" ? "" : state, cursor: pages.cursor })}`, signal),
      read("/v1/stats?minutes=1", signal),
    ]);
    const all = accounts.open + accounts.waiting + accounts.held + accounts.paused;
    return { page, counts: { ...accounts, all } };
  };
  const make = ({ page, counts }) => [
    row(heading("Accounts"), el("span", { class: "space" }), go()),
    tabs(
      "Accounts by state",
      TABS.map(([name, text]) => [text, counts[name], name === state, address("accounts", name)]),
    ),
    panel(
      null,
      table("Accounts", COLUMNS, page.accounts.map(line), EMPTY[state] ?? "No account is in this state."),
      pages.links(page.cursor),
    ),
  ];
  return { load, make, wants: (name) => name !== "message.accepted" };
}

// Also for an account that is not there yet, to register its callback.
const go = () =>
  form(
    { class: "row", "data-keep": "go" },
    ({ account }) => (location.hash = address("account", account)),
    input("account", { "aria-label": "Account", maxlength: "64", required: true, placeholder: "0000123456-00001" }),
    el("button", {}, "Open"),
  );

function line(one) {
  const { account, backlog, callback } = one;
  return {
    key: account,
    cells: [
      link(account, "account", account),
      stateOf(one),
      causeOf(one),
      count(backlog.pending),
      count(backlog.dead),
      time(backlog.oldestAcceptedAt, "age"),
      callback?.url ?? "none",
    ],
  };
}
