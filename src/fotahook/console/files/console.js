// Shows the page of the address, signs in and out, and keeps the parts that every page shares.
import { showAccount } from "./account.js";
import { showAccounts } from "./accounts.js";
import { onSignedOut, query, read, session, signIn, signOut } from "./api.js";
import { showCampaign, showCampaigns } from "./campaigns.js";
import { clockName, duration, switchClock } from "./clock.js";
import { atMostEvery, button, count, el, guarded, heading, notify, panel, paragraph, render, row } from "./dom.js";
import { follow } from "./events.js";
import { listenToKeys, showHelp } from "./keys.js";
import { addLive, clearLive, showLive } from "./live.js";
import { showMessage } from "./message.js";
import { showOverview } from "./overview.js";
import { attachSearch } from "./search.js";
import { showSend } from "./send.js";
import { showSender } from "./sender.js";

const VIEWS = {
  overview: showOverview,
  accounts: showAccounts,
  account: showAccount,
  message: showMessage,
  campaigns: showCampaigns,
  campaign: showCampaign,
  live: showLive,
  send: showSend,
  sender: showSender,
};
const REFRESH_MILLISECONDS = 500;
// Also without an event: what waits grows older, and numbers may be a moment behind their event.
const REFRESH_ANYWAY_MILLISECONDS = 10_000;
const RECENT = 200;
const DEV = ["dev", "dev-secret"];
const HINTS = {
  listener: "The listener's inbox. fotahook listen printed the client's secret when it started.",
  service: "Use a client with the scope read or operate; fotahook admin client create creates one.",
};

const by = (id) => document.getElementById(id);
const main = by("main");
const entry = by("sign-in");
let who = { signedIn: false, scopes: [] };
let visit = new AbortController();
let following = new AbortController();
let lostAt = null;
let present = { refresh: () => {}, wants: () => false };

// The address names the page, never the client.
async function show() {
  visit.abort();
  visit = new AbortController();
  const { signal } = visit;
  const [view, ...names] = place();
  notify("");
  for (const one of document.querySelectorAll("[data-signed-in]")) one.hidden = !who.signedIn;
  entry.hidden = who.signedIn;
  if (!who.signedIn) {
    main.replaceChildren();
    return entry.elements.id.focus();
  }
  for (const one of document.querySelectorAll("#nav a")) {
    const isHere = [view, `${view}s`, view === "message" && "accounts"].includes(one.dataset.view);
    if (isHere) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  const page = el("div", { "data-view": view });
  page.append(skeleton());
  main.replaceChildren(page);
  main.setAttribute("aria-busy", "true");
  present = { refresh: () => {}, wants: () => false };
  await draw(page, view, names, signal);
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  // Unless somebody types already: the page may be drawn twice before it is called ready.
  const at = document.activeElement;
  if (!main.contains(at) && !at?.matches("input")) page.querySelector("h1")?.focus({ preventScroll: true });
}

// A view gives what to draw, and which events change it.
async function draw(page, view, names, signal) {
  const can = (scope) => who.scopes.includes(scope) || (scope === "read" && who.scopes.includes("operate"));
  const context = { signal, who, can };
  try {
    const { load, make, wants = () => false } = await VIEWS[view](context, ...names);
    const refresh = oneAtATime(async () => {
      const loaded = await load();
      if (!signal.aborted) render(page, make(loaded));
    });
    context.refresh = refresh;
    // Before the first answer: what happens while it is under way must not be missed.
    const soon = atMostEvery(REFRESH_MILLISECONDS, () => refresh().catch(notify));
    if (!signal.aborted) present = { refresh: soon, now: refresh, wants };
    await refresh();
  } catch (error) {
    if (!signal.aborted) render(page, failure(error));
  }
}

// Runs one call at a time, so that an older answer never replaces a newer one; what is called meanwhile runs once more.
function oneAtATime(act) {
  let running = null;
  let again = false;
  const run = async () => {
    do {
      again = false;
      await act();
    } while (again);
  };
  return () => {
    again = running !== null;
    running ??= run().finally(() => (running = null));
    return running;
  };
}

function failure(error) {
  const again = button("Try again", show, { class: "primary" });
  return [
    heading(error.status === 404 ? "Not found" : "This page cannot be shown"),
    panel(null, paragraph(error.message), row(again, el("a", { class: "button", href: "#/overview" }, "Overview"))),
  ];
}

const skeleton = () =>
  el(
    "div",
    { class: "skeleton", "aria-hidden": "true" },
    [1, 2, 3].map(() => el("div", {})),
  );

function place() {
  try {
    const names = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    if (Object.hasOwn(VIEWS, names[0])) return names;
  } catch {
    // A malformed address shows the first page.
  }
  return ["overview"];
}

// One stream of events for the whole page: the live list keeps the last ones, and the page shown refreshes.
async function start() {
  who = await session();
  by("sign-in-hint").textContent = HINTS[who.kind];
  by("sign-in-dev").hidden = !who.dev;
  document.documentElement.dataset.kind = who.kind;
  for (const one of document.querySelectorAll("#nav [data-kind]")) one.hidden = one.dataset.kind !== who.kind;
  following.abort();
  if (who.signedIn) {
    following = new AbortController();
    lostAt = null;
    clearLive();
    by("who").textContent = who.client;
    follow(`/v1/events${query({ recent: RECENT })}`, following.signal, onEvent, onState);
    countTrouble().catch(notify);
  }
  await show();
}

function onEvent(name, event) {
  addLive(name, event);
  if (name === "lane.changed") countTrouble().catch(notify);
  if (present.wants(name, event)) present.refresh();
}

const LIVE = { connected: "live", lost: "connection lost, reconnecting; no event is missed" };

// The live list shows where the connection was lost, and whether it goes on without a gap.
function onState(state) {
  if (state === "lost") lostAt ??= new Date();
  if (state === "gone") {
    clearLive();
    addLive("connection", { at: new Date().toISOString(), text: "the service no longer has the events before these" });
    return;
  }
  const live = by("live");
  live.dataset.state = state === "connected" ? "ok" : "bad";
  live.textContent = LIVE[state] ?? state;
  if (state !== "connected") return;
  if (lostAt) {
    const text = `the connection was lost for ${duration((Date.now() - lostAt) / 1000)}; no event was missed`;
    addLive("connection", { at: lostAt.toISOString(), text });
    lostAt = null;
  }
  // What changed while there was no connection.
  present.refresh();
}

async function countTrouble() {
  const { accounts } = await read(`/v1/stats${query({ minutes: 1 })}`);
  by("trouble").textContent = accounts.trouble ? count(accounts.trouble) : "";
}

const enter = (id, secret, pressed) =>
  guarded(pressed, async () => {
    await signIn(id, secret);
    entry.reset();
    await start();
  });

entry.addEventListener("submit", (event) => {
  event.preventDefault();
  enter(entry.elements.id.value, entry.elements.secret.value, event.submitter);
});
by("sign-in-dev").addEventListener("click", (event) => enter(...DEV, event.currentTarget));
onSignedOut((why) => {
  following.abort();
  who = { signedIn: false, scopes: [] };
  show();
  notify(why);
});
by("sign-out").addEventListener("click", () => signOut().catch(notify));
by("help").addEventListener("click", showHelp);
by("clock").textContent = clockName();
by("clock").addEventListener("click", (event) => {
  event.currentTarget.textContent = switchClock();
});
addEventListener("hashchange", show);
attachSearch(by("search"));
listenToKeys(() => present.now?.().catch(notify));
setInterval(() => document.hidden || present.refresh(), REFRESH_ANYWAY_MILLISECONDS);
start().catch(notify);
