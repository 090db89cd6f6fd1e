// Campaigns: their devices by status, who has not reported, what failed, and when results came.
import { accountPath, query, read, segment } from "./api.js";
import { bars, legend, parts, RESULTS } from "./charts.js";
import { time } from "./clock.js";
import {
  chip,
  code,
  count,
  el,
  field,
  figures,
  form,
  heading,
  input,
  link,
  muted,
  panel,
  paragraph,
  row,
  table,
  tabs,
} from "./dom.js";
import { pager } from "./pager.js";

const LIST = [["Campaign"], ["Account"], ["Devices"], ["Reported", "n"], ["Failed", "n"], ["State", "end"]];
const DEVICES = [["Device"], ["Status"], ["Reason", "under"], ["Source", "wide"], ["When", "end"]];
const KINDS = { succeeded: "ok", failed: "bad", silent: "warn", overdue: "bad" };
const LEAST_SLOTS = 12;

export async function showCampaigns(context) {
  const pages = pager(context);
  const load = () => read(`/v1/campaigns${query({ cursor: pages.cursor })}`, context.signal);
  const empty = "No campaign yet: one appears with the first message that names it.";
  const make = ({ campaigns, cursor }) => [
    heading("Campaigns"),
    panel(null, table("Campaigns, newest first", LIST, campaigns.map(line), empty), pages.links(cursor)),
  ];
  return { load, make, wants: (name) => name === "message.accepted" };
}

const partsOf = ({ succeeded, failed, other, silent, overdue }) =>
  parts([
    ["succeeded", succeeded, "ok"],
    ["failed", failed, "bad"],
    ["under way", other, "warn"],
    ["silent", silent - overdue, "idle"],
    ["overdue", overdue, "late"],
  ]);

function line(one) {
  const reported = one.succeeded + one.failed + one.other;
  return {
    key: `${one.account}/${one.campaignId}`,
    cells: [
      link(one.campaignId, "campaign", one.account, one.campaignId),
      link(one.account, "account", one.account),
      partsOf(one),
      `${count(reported)} of ${count(reported + one.silent)}`,
      count(one.failed),
      summary(one),
    ],
  };
}

export async function showCampaign(context, account, id, device = "") {
  const path = accountPath(account, "campaigns", segment(id));
  const pages = pager(context);
  let wanted = { status: "", device };
  const load = async () => {
    const devices = `${path}/devices${query({ ...wanted, cursor: pages.cursor, limit: 50 })}`;
    const [campaign, page] = await Promise.all([read(path, context.signal), read(devices, context.signal)]);
    return { campaign, page };
  };
  const choose = async (given) => {
    wanted = { ...wanted, ...given };
    pages.reset();
    await context.refresh();
  };
  const make = ({ campaign, page }) => draw(campaign, page, { wanted, choose, pages });
  return { load, make, wants: (name, event) => name === "message.accepted" && event.account === account };
}

function draw(campaign, page, { wanted, choose, pages }) {
  const { account, campaignId, succeeded, failed, other, silent, overdue, repaired, until, lastAt } = campaign;
  const total = succeeded + failed + other + silent;
  const percent = total ? Math.floor((100 * (succeeded + failed)) / total) : 0;
  return [
    row(heading(el("span", { class: "name id" }, campaignId), " ", summary(campaign))),
    paragraph(
      muted("Account "),
      link(account, "account", account),
      until && muted(" · ends ", time(until, "until")),
      lastAt && muted(" · last status ", time(lastAt)),
    ),
    panel(
      null,
      figures([
        ["devices", count(total)],
        ["succeeded", count(succeeded)],
        ["failed", count(failed), failed ? "bad" : ""],
        ["under way", count(other)],
        ["silent", count(silent)],
        ["overdue", count(overdue), overdue ? "bad" : ""],
        ["repaired from the report", count(repaired)],
      ]),
      partsOf(campaign),
      paragraph(muted(`${percent} % have a final result`)),
    ),
    el(
      "div",
      { class: campaign.reasons.length ? "two" : "" },
      campaign.timeline.length > 1 && timeline(campaign.timeline),
      campaign.reasons.length > 0 &&
        panel("Failures by reason", el("ul", { class: "reasons" }, campaign.reasons.map(reason))),
    ),
    panel(
      "Devices",
      tabs(
        "Devices by status",
        [
          ["all", total],
          ["failed", failed],
          ["silent", silent],
          ["overdue", overdue],
          ["succeeded", succeeded],
        ].map(([name, number]) => {
          const status = name === "all" ? "" : name;
          return [name, number, status === wanted.status, () => choose({ status })];
        }),
      ),
      form(
        { class: "filters", "data-keep": "device", "aria-label": "Find a device" },
        choose,
        field("Device id", input("device", { value: wanted.device })),
        el("button", {}, "Find"),
      ),
      table("Devices", DEVICES, page.devices.map(deviceLine), "No device of this kind."),
      pages.links(page.cursor),
    ),
  ];
}

function summary({ overdue, silent, other }) {
  if (overdue) return chip(`${count(overdue)} overdue`, "bad");
  if (silent) return chip(`${count(silent)} silent`, "warn");
  return other ? chip(`${count(other)} under way`, "warn") : chip("all reported", "ok");
}

// The spans in which something was reported, in their places among all of them.
function timeline(found) {
  const times = found.map(({ at }) => Date.parse(at));
  const step = Math.min(...times.slice(1).map((at, n) => at - times[n]));
  const place = (at) => Math.round((at - times[0]) / step);
  const nothing = { succeeded: 0, failed: 0, other: 0 };
  const at = (n) => new Date(times[0] + n * step).toISOString();
  const slots = Array.from({ length: Math.max(place(times.at(-1)) + 1, LEAST_SLOTS) }, (_, n) => ({
    at: at(n),
    ...nothing,
  }));
  found.forEach((one, n) => (slots[place(times[n])] = one));
  return panel(
    "Timeline",
    bars("Results over time", slots, RESULTS),
    el("div", { class: "axis" }, time(found[0].at, "exact"), time(slots.at(-1).at, "exact")),
    legend(RESULTS),
  );
}

const reason = ({ reason: text, count: number }) =>
  el("li", {}, el("strong", {}, count(number)), " ", text || "no reason given");

const deviceLine = ({ deviceId, status, reason: text, source, at, kind, messageId }) => ({
  key: deviceId,
  cells: [
    messageId ? link(deviceId, "message", messageId) : code(deviceId),
    chip(status ?? kind, KINDS[kind] ?? ""),
    text ?? "–",
    source ?? "–",
    time(at),
  ],
});
