// Server-sent events by fetch, because EventSource sends no header, and the session needs one.
import { call, Refused } from "./api.js";

const PAUSE_MILLISECONDS = 1000;
// The service sends something every 15 s: a connection that is silent for longer is dead, though nothing else says so.
const SILENCE_MILLISECONDS = 40_000;
const TOO_MANY = 429;
const GONE = 410;

// Calls `onEvent(name, data)` for each event and `onState("connected" | "lost" | "gone" | message)`; reconnects and
// resumes after the last event until `signal` is aborted. "gone": what came after the last event is no longer there.
export async function follow(path, signal, onEvent, onState) {
  let last = null;
  while (!signal.aborted) {
    try {
      const answer = await call(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      onState("connected");
      for await (const block of blocks(answer.body)) {
        const event = parse(block);
        last = event.id ?? last;
        if (event.data) onEvent(event.name, JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      const status = error instanceof Refused ? error.status : 0;
      if (status === GONE) {
        last = null;
        onState("gone");
      } else if (status >= 400 && status < 500 && status !== TOO_MANY) return onState(error.message);
    }
    if (signal.aborted) return;
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
  }
}

async function* blocks(body) {
  let rest = "";
  for await (const text of readable(body.pipeThrough(new TextDecoderStream()))) {
    const parts = (rest + text).split("\n\n");
    rest = parts.pop();
    yield* parts;
  }
}

async function* readable(stream) {
  const reader = stream.getReader();
  for (;;) {
    const silence = setTimeout(() => reader.cancel(), SILENCE_MILLISECONDS);
    const part = await reader.read().finally(() => clearTimeout(silence));
    if (part.done) return;
    yield part.value;
  }
}

function parse(block) {
  const event = {};
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data = line.slice(6);
  }
  return event;
}
