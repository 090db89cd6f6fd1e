// What the sender of a listener's messages does: repeats, comes late, uses a former path; and how fast it is answered.
import { read } from "./api.js";
import { time } from "./clock.js";
import { chip, count, figures, heading, muted, panel, paragraph, table } from "./dom.js";

const ANSWERS = { new: "stored", repeated: "repetition, dropped" };
const number = (of, name) => count(of[name] ?? 0);

export async function showSender({ signal }) {
  return { load: () => read("/v1/sender", signal), make, wants: (name) => name === "message.accepted" };
}

function make({ since, answers, seconds, addresses, agents, events }) {
  return [
    heading("Sender"),
    panel(
      "The last day",
      figures([
        ["stored", number(answers, "new")],
        ["repetitions dropped", number(answers, "repeated")],
        ["late: known or overtaken", number(events, "late")],
        ["repaired from reports", number(events, "repaired"), events.repaired ? "bad" : ""],
        ["at a former path", number(events, "former_path")],
        ["with a former password", number(events, "former_password")],
      ]),
      paragraph(muted("Counted by this process since ", time(since), ".")),
    ),
    counted("Answers", answers, "No message was answered yet.", answer),
    counted("Answer times", seconds, "No message was answered yet.", answerTime),
    counted("Source addresses", addresses, "No address was seen yet.", (name) => name || "unknown"),
    counted("User agents", agents, "No user agent was seen yet.", (name) => name || "none"),
  ];
}

const answer = (name) => ANSWERS[name] ?? chip(`refused with ${name}`, "bad");
const answerTime = (name) =>
  name === "inf" ? chip("longer: a second copy comes after about 4 s", "bad") : `up to ${name} s`;

function counted(title, of, empty, text) {
  const counts = Object.entries(of).sort(([, one], [, other]) => other - one);
  const rows = counts.map(([name, times]) => ({ key: name, cells: [text(name), count(times)] }));
  return panel(title, table(title, [[title], ["Messages", "n"]], rows, empty));
}
