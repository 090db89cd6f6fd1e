// Campaigns: their devices by status, who has not reported, and what failed.
import { accountPath, query, read, segment } from "./api.js";
import { parts } from "./charts.js";
import { time } from "./clock.js";
import { chip, count, el, figures, form, heading, input, link, muted, panel, paragraph, row, table } from "./dom.js";
import { pager } from "./pager.js";

const LIST = [["Campaign"], ["Account"], ["Devices"], ["Reported", "n"], ["Failed", "n"], ["Last status", "n wide"]];
const DEVICES = [["Device"], ["Status"], ["Reason", "wide"], ["Source", "wide"], ["When", "n"]];
const KINDS = { succeeded: "ok", failed: "bad", silent: "warn", overdue: "bad" };

export async function showCampaigns(context) {
  const pages = pager(context);
  const load = () => read(`/v1/campaigns${query({ cursor: pages.cursor })}`, context.signal);
  const make = (page) => [heading("Campaigns"), panel(null,
    table("Campaigns, the latest result first", LIST, page.campaigns.map(line), "No campaign yet: one appears with the first message that names it."), pages.links(page.cursor))];
  return { load, make, wants: (name) => name === "message.accepted" };
}

const partsOf = ({ succeeded, failed, other, silent, overdue }) => parts([["succeeded", succeeded, "ok"], ["failed", failed, "bad"], ["under way", other, "warn"], ["silent", silent - overdue, "idle"], ["overdue", overdue, "late"]]);

function line(one) {
  const reported = one.succeeded + one.failed + one.other;
  return { key: `${one.account}/${one.campaignId}`, cells: [link(one.campaignId, "campaign", one.account, one.campaignId), link(one.account, "account", one.account), partsOf(one), `${count(reported)} of ${count(reported + one.silent)}`, count(one.failed), time(one.lastAt)] };
}

export async function showCampaign(context, account, id, device = "") {
  const path = accountPath(account, "campaigns", segment(id));
  const pages = pager(context);
  let status = "";
  let find = device;
  const load = async () => {
    const [campaign, page] = await Promise.all([read(path, context.signal), read(`${path}/devices${query({ status, device: find, cursor: pages.cursor, limit: 50 })}`, context.signal)]);
    return { campaign, page };
  };
  const choose = (given) => async () => {
    ({ status, find } = { status, find, ...given });
    pages.reset();
    await context.refresh();
  };
  const make = ({ campaign, page }) => draw(account, id, campaign, page, { status, find, choose, pages });
  return { load, make, wants: (name, event) => name === "message.accepted" && event.account === account };
}

function draw(account, id, campaign, page, { status, find, choose, pages }) {
  const { succeeded, failed, other, silent, overdue, repaired } = campaign;
  const total = succeeded + failed + other + silent;
  const percent = total ? Math.floor((100 * (succeeded + failed)) / total) : 0;
  return [
    row(heading(el("span", { class: "name" }, id), " ", overdue ? chip(`${count(overdue)} overdue`, "bad") : silent ? chip(`${count(silent)} silent`, "warn") : other ? chip(`${count(other)} under way`, "warn") : chip("all reported", "ok"))),
    paragraph(muted("Account "), link(account, "account", account), campaign.until && [muted(" · ends "), time(campaign.until, "until")], campaign.lastAt && [muted(" · last status "), time(campaign.lastAt)]),
    panel(null,
      figures([["devices", count(total)], ["succeeded", count(succeeded)], ["failed", count(failed), failed ? "bad" : ""], ["under way", count(other)], ["silent", count(silent)], ["overdue", count(overdue), overdue ? "bad" : ""], ["repaired from the report", count(repaired)]]),
      partsOf(campaign), paragraph(muted(`${percent} % have a final result`))),
    campaign.reasons.length > 0 && panel("Failures by reason", el("ul", { class: "reasons" }, campaign.reasons.map(({ reason, count: number }) => el("li", {}, el("strong", {}, count(number)), " ", reason || "no reason given")))),
    panel("Devices",
      el("div", { class: "tabs", role: "group", "aria-label": "Devices by status" }, ["", "failed", "silent", "overdue", "succeeded"].map((name) => el("button", { type: "button", class: "tab", "aria-pressed": String(name === status), click: () => choose({ status: name })() }, name || "all"))),
      form({ class: "filters", "data-keep": "device" }, (given) => choose({ find: given.device })(), input("device", { placeholder: "device id", "aria-label": "Device id", value: find }), el("button", {}, "Find")),
      table("Devices", DEVICES, page.devices.map(deviceLine), "No device of this kind."), pages.links(page.cursor)),
  ];
}

function deviceLine({ deviceId, status, reason, source, at, kind, messageId }) {
  return { key: deviceId, cells: [messageId ? link(deviceId, "message", messageId) : el("code", {}, deviceId), chip(status ?? kind, KINDS[kind] ?? ""), reason ?? "–", source ?? "–", time(at)] };
}
