// Server-sent events by fetch, because EventSource sends no header, and the session needs one.
import { call, Refused } from "./api.js";

const PAUSE_MILLISECONDS = 1000;

// Calls `onEvent(name, data)` for each event and `onState("connected" | "lost" | message)`; reconnects and resumes after the
// last event until `signal` is aborted.
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
      onState("lost");
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 410) last = null;
      else if (error instanceof Refused && error.status && error.status < 500) return onState(error.message);
      onState("lost");
    }
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
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
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
