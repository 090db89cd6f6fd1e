// Calls of the API. The token is kept in this module's memory only, not in an address or storage; a reload signs out.
let token = null;
let whenSignedOut = () => {};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isSignedIn = () => token !== null;

export function onSignedOut(listener) {
  whenSignedOut = listener;
}

export function signOut(why = "") {
  token = null;
  whenSignedOut(why);
}

export async function signIn(id, secret) {
  const basic = btoa(String.fromCharCode(...new TextEncoder().encode(`${id}:${secret}`)));
  const response = await request("/api/ts/v1/oauth2/token", {
    method: "POST",
    headers: { Authorization: `Basic ${basic}`, "Content-Type": "application/x-www-form-urlencoded" },
    body: "grant_type=client_credentials",
  });
  token = (await response.json()).access_token;
}

// One segment of a path: an account may contain any character.
export const segment = encodeURIComponent;

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const read = async (path, signal) => (await call(path, { signal })).json();
export const readText = async (path, signal) => (await call(path, { signal })).text();
export const post = async (path, body) => (await call(path, { method: "POST", body: JSON.stringify(body ?? {}) })).json();
export const patch = async (path, body) => (await call(path, { method: "PATCH", body: JSON.stringify(body) })).json();

// Returns a successful response; throws the service's error message otherwise.
export async function call(path, { headers, ...options } = {}) {
  try {
    return await request(path, { ...options, headers: { ...headers, Authorization: `Bearer ${token}` } });
  } catch (error) {
    if (error.status === 401) signOut("You were signed out: the access token expired or was revoked. Sign in again.");
    throw error;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached. Check that it is running and that you are connected to it.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.errorMessage ?? body.fault?.description ?? `The service answered ${response.status}.`);
}
