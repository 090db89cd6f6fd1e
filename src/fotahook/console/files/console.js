// Shows the page of the address, and signs in and out.
import { showAccount } from "./account.js";
import { showAccounts } from "./accounts.js";
import { isSignedIn, onSignedOut, signIn, signOut } from "./api.js";
import { el, notify } from "./dom.js";
import { showLive } from "./live.js";
import { showMessage } from "./message.js";

const VIEWS = { accounts: showAccounts, account: showAccount, message: showMessage, live: showLive };

const main = document.querySelector("main");
const entry = document.querySelector("#sign-in");
let leaving = new AbortController();

// The address names the page, never the client.
async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [view, ...names] = place();
  notify("");
  entry.hidden = isSignedIn();
  for (const one of document.querySelectorAll("[data-signed-in]")) one.hidden = !isSignedIn();
  if (!isSignedIn()) {
    main.replaceChildren();
    return entry.elements.id.focus();
  }
  for (const one of document.querySelectorAll("header nav a")) {
    if (one.dataset.view === view) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  const page = el("div");
  main.setAttribute("aria-busy", "true");
  try {
    await VIEWS[view](page, signal, ...names);
  } catch (error) {
    if (!signal.aborted) notify(error);
  }
  if (signal.aborted) return;
  main.replaceChildren(page);
  main.removeAttribute("aria-busy");
  page.querySelector("h2")?.focus();
}

function place() {
  try {
    const names = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    if (Object.hasOwn(VIEWS, names[0])) return names;
  } catch {
    // A malformed address shows the first page.
  }
  return ["accounts"];
}

entry.addEventListener("submit", async (event) => {
  event.preventDefault();
  const pressed = entry.querySelector("button");
  pressed.disabled = true;
  try {
    await signIn(entry.elements.id.value, entry.elements.secret.value);
    entry.reset();
    await show();
  } catch (error) {
    notify(error);
  } finally {
    pressed.disabled = false;
  }
});

onSignedOut((why) => {
  show();
  notify(why);
});
document.querySelector("#sign-out").addEventListener("click", () => signOut());
addEventListener("hashchange", show);
// A browser may keep the page for "back": neither the token nor the event stream may outlive the visit.
addEventListener("pagehide", () => signOut());
show();
