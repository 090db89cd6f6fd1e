// The token lives in this module's memory alone: a reload signs out.
let token = null;

const signIn = document.querySelector("#sign-in");
const lookUp = document.querySelector("#look-up");
const signOut = document.querySelector("#sign-out");
const notice = document.querySelector("#notice");
const account = document.querySelector("#account");

const utf8ToBase64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

class Refused extends Error {}

async function call(path, options) {
  const response = await fetch(path, { ...options, credentials: "omit", cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    if (response.status === 401) leave();
    throw new Refused(body.errorMessage ?? body.fault?.message ?? `The service answered ${response.status}.`);
  }
  return body;
}

function arrive(newToken) {
  token = newToken;
  signIn.reset();
  signIn.hidden = true;
  lookUp.hidden = signOut.hidden = false;
  lookUp.elements.account.focus();
}

function leave() {
  token = null;
  signIn.hidden = false;
  lookUp.hidden = signOut.hidden = account.hidden = true;
}

function onSubmit(form, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    notice.textContent = "";
    try {
      await act(new FormData(form));
    } catch (error) {
      account.hidden = true;
      notice.textContent = error instanceof Refused ? error.message : "The service cannot be reached.";
    } finally {
      button.disabled = false;
    }
  });
}

onSubmit(signIn, async (fields) => {
  const basic = utf8ToBase64(`${fields.get("id")}:${fields.get("secret")}`);
  const answer = await call("/api/ts/v1/oauth2/token", {
    method: "POST",
    headers: { Authorization: `Basic ${basic}`, "Content-Type": "application/x-www-form-urlencoded" },
    body: "grant_type=client_credentials",
  });
  arrive(answer.access_token);
});

onSubmit(lookUp, async (fields) => {
  const name = encodeURIComponent(fields.get("account"));
  show(await call(`/v1/accounts/${name}`, { headers: { Authorization: `Bearer ${token}` } }));
});

signOut.addEventListener("click", () => {
  leave();
  notice.textContent = "";
});

function show(found) {
  const { callback, lane, backlog } = found;
  account.querySelector("h2").textContent = found.account;
  put("callback", callback ? `${callback.url}\nrevision ${callback.revision}, since ${moment(callback.registeredAt)}` : "none");
  put("lane", [lane.state, lane.reason, lane.until && `until ${moment(lane.until)}`].filter(Boolean).join(", "), lane.state);
  const oldest = backlog.oldestAcceptedAt ? `, the oldest since ${moment(backlog.oldestAcceptedAt)}` : "";
  put("pending", `${backlog.pending}${oldest}`);
  put("dead", `${backlog.dead}`);
  account.hidden = false;
}

// Text alone is ever put into the page, so that nothing in an answer can become part of it.
function put(fact, text, state = "") {
  const cell = account.querySelector(`[data-fact="${fact}"]`);
  cell.textContent = text;
  cell.dataset.state = state;
}

const moment = (text) => new Date(text).toLocaleString();
