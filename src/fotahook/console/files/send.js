// Sends a test message: a form for each kind that ThingSpace sends, or pasted JSON; then watches it arrive.
import { accountPath, post, read, segment } from "./api.js";
import { el, field, form, heading, input, link, muted, notify, panel, paragraph, render, row, select } from "./dom.js";
import { deliveryState } from "./states.js";

const FIRMWARE = "Model-1_FW_1.0_to_2.0";
const STATUSES = ["UpgradeSuccess", "UpgradeFailed", "UpgradePending", "DownloadSuccess", "DownloadFailed"];
const WATCH_MILLISECONDS = 300;
const WATCHED = 200;

// The bodies that ThingSpace documents for V1, in which what V2 does not publish is fotahook's own; see docs/thingspace.md.
const KINDS = {
  upgradeProgress: {
    text: "Result of an upgrade",
    fields: [["device", "Device id", "990013907835573"], ["campaign", "Campaign id", "60b5d639-ccdc-4db8-8824-069bd94c95bf"], ["status", "Status", STATUSES], ["reason", "Reason", "DownloadInstallSucceeded"]],
    body: ({ account, device, campaign, status, reason }) => ({ accountName: account, type: "upgradeProgress", firmwareList: [], upgradeProgress: { firmwareName: FIRMWARE, upgradeId: campaign, campaignId: campaign, deviceList: [{ deviceId: device, status, ...(reason && { resultReason: reason }) }] } }),
  },
  upgradeScheduled: {
    text: "An upgrade is scheduled",
    fields: [["device", "Device id", "990013907835573"], ["campaign", "Campaign id", "60b5d639-ccdc-4db8-8824-069bd94c95bf"]],
    body: ({ account, device, campaign }) => ({ accountName: account, type: "upgradeScheduled", firmwareList: [], upgradeScheduled: { firmwareName: FIRMWARE, upgradeId: campaign, campaignId: campaign, status: "CampaignScheduled", deviceList: [{ deviceId: device, status: "Accepted" }] } }),
  },
  firmwareList: {
    text: "New firmware is available",
    fields: [["make", "Make", "Maker"], ["model", "Model", "Model-1"], ["from", "From version", "1.0"], ["to", "To version", "2.0"]],
    body: ({ account, make, model, from, to }) => ({ accountName: account, type: "firmwareList", firmwareList: [{ firmwareName: FIRMWARE, participantName: account, launchDate: new Date().toISOString().slice(0, 10), releaseNote: "", model, make, fromVersion: from, toVersion: to }] }),
  },
  pasted: { text: "Pasted JSON", fields: [], body: ({ json }) => json },
};

export async function showSend(context, account = "") {
  let kind = "upgradeProgress";
  const watched = el("div", { "data-keep": "watched" });
  const send = async (given) => {
    const body = KINDS[kind].body(given);
    const sent = await post(accountPath(given.account, "messages"), typeof body === "string" ? body : JSON.stringify(body), given.device ? { "Ordering-Key": given.device } : {});
    notify("");
    await watch(context, watched, sent.id);
  };
  const choose = (event) => {
    kind = event.target.value;
    context.refresh();
  };
  const make = () => [
    heading("Send a test message"),
    panel(null,
      el("label", {}, el("span", {}, "Kind"), el("select", { name: "kind", change: choose }, Object.entries(KINDS).map(([value, { text }]) => el("option", { value, selected: value === kind }, text)))),
      form({ "data-key": `form-${kind}`, class: "stack" }, send,
        field("Account", input("account", { required: true, maxlength: "64", value: account, placeholder: "0000123456-00001" })),
        KINDS[kind].fields.map(([name, text, value]) => field(text, Array.isArray(value) ? select(name, value.map((one) => [one, one])) : input(name, { value }))),
        kind === "pasted" && field("JSON object", el("textarea", { name: "json", rows: "10", required: true, spellcheck: "false" }), "Delivered byte for byte."),
        row(el("button", { class: "primary" }, "Send"), muted("It goes to the account's registered callback like any other message.")))),
    watched,
  ];
  return { load: async () => null, make };
}

async function watch(context, container, id) {
  const path = `/v1/messages/${segment(id)}`;
  for (let n = 0; n < WATCHED && !context.signal.aborted; n += 1) {
    // In this order, so that the message is not older than its reasons.
    const why = await read(`${path}/why`, context.signal);
    const message = await read(path, context.signal);
    render(container, panel("Your message", paragraph(link(id, "message", id), " ", deliveryState(message.deliveries[0])), el("ul", { class: "why" }, why.reasons.map((one) => el("li", {}, one.text)))));
    if (why.state !== "pending" || message.deliveries[0]?.attempts > 0) return;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MILLISECONDS));
  }
}
