// Calls of the API. A session cookie that scripts cannot read signs them in; see docs/console.md.
const HEADERS = { "Fotahook-Console": "1" };
let whenSignedOut = () => {};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function onSignedOut(listener) {
  whenSignedOut = listener;
}

// The session: {signedIn, client, scopes, kind, dev}.
export const session = async () => (await request("/console/session", {})).json();
export const signIn = (clientId, clientSecret) => post("/console/login", { clientId, clientSecret });

export async function signOut(why = "") {
  await request("/console/logout", { method: "POST", body: "{}" });
  whenSignedOut(why);
}

// One segment of a path: an account may contain any character.
export const segment = encodeURIComponent;
export const accountPath = (name, ...more) => ["/v1/accounts", segment(name), ...more].join("/");

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const read = async (path, signal) => (await call(path, { signal })).json();
export const readText = async (path, signal) => (await call(path, { signal })).text();
export const post = (path, body, headers) => change("POST", path, body, headers);
export const put = (path, body) => change("PUT", path, body);
export const patch = (path, body) => change("PATCH", path, body);
export const remove = async (path) => (await call(path, { method: "DELETE" })).json();

async function change(method, path, body, headers) {
  const text = typeof body === "string" ? body : JSON.stringify(body ?? {});
  return (await call(path, { method, body: text, headers })).json();
}

// Returns a successful response; throws the service's error message otherwise.
export async function call(path, options) {
  try {
    return await request(path, options);
  } catch (error) {
    if (error.status === 401 && path !== "/console/login")
      whenSignedOut("You were signed out: the session ended or was revoked. Sign in again.");
    throw error;
  }
}

async function request(path, { headers, ...options }) {
  let response;
  const given = { ...HEADERS, ...(options.body && { "Content-Type": "application/json" }), ...headers };
  try {
    response = await fetch(path, {
      ...options,
      headers: given,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached. Check that it is running and that you are connected to it.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(
    response.status,
    body.errorMessage ?? body.fault?.description ?? `The service answered ${response.status}.`,
  );
}
