// The calls. The token lives in this module's memory alone: in no address, in no storage; a reload signs out.
let token = null;
let whenSignedOut = () => {};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isSignedIn = () => token !== null;

export function onSignedOut(told) {
  whenSignedOut = told;
}

export function signOut(why = "") {
  token = null;
  whenSignedOut(why);
}

export async function signIn(id, secret) {
  const basic = btoa(String.fromCharCode(...new TextEncoder().encode(`${id}:${secret}`)));
  const answer = await answered("/api/ts/v1/oauth2/token", {
    method: "POST",
    headers: { Authorization: `Basic ${basic}`, "Content-Type": "application/x-www-form-urlencoded" },
    body: "grant_type=client_credentials",
  });
  token = (await answer.json()).access_token;
}

// One segment of a path: an account may be any text.
export const segment = encodeURIComponent;

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const read = async (path, signal) => (await call(path, { signal })).json();
export const readText = async (path, signal) => (await call(path, { signal })).text();
export const post = async (path, body) => (await call(path, { method: "POST", body: JSON.stringify(body ?? {}) })).json();
export const patch = async (path, body) => (await call(path, { method: "PATCH", body: JSON.stringify(body) })).json();

// An answer that is there; errors are told in the service's own words.
export async function call(path, { headers, ...options } = {}) {
  try {
    return await answered(path, { ...options, headers: { ...headers, Authorization: `Bearer ${token}` } });
  } catch (error) {
    if (error.status === 401) signOut("The sign-in is over, after an hour or because it was revoked. Sign in again.");
    throw error;
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached. Is it running, and are you connected to it?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.errorMessage ?? body.fault?.description ?? `The service answered ${response.status}.`);
}
