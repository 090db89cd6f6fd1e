// Sends a test message: a form for each kind that ThingSpace sends, or pasted JSON; then shows it arrive.
import { accountPath, post, read, segment } from "./api.js";
import { el, field, form, heading, input, link, muted, notify, panel, paragraph, row, select } from "./dom.js";
import { banner, deliveryState } from "./states.js";

const FIRMWARE = "Model-1_FW_1.0_to_2.0";
const STATUSES = ["UpgradeSuccess", "UpgradeFailed", "UpgradePending", "DownloadSuccess", "DownloadFailed"];
const DEVICE = ["device", "Device id", "990013907835573"];
const CAMPAIGN = ["campaign", "Campaign id", "60b5d639-ccdc-4db8-8824-069bd94c95bf"];

// The bodies that ThingSpace documents for V1; what V2 does not publish is fotahook's own: docs/thingspace.md.
const KINDS = {
  upgradeProgress: {
    text: "Result of an upgrade",
    fields: [DEVICE, CAMPAIGN, ["status", "Status", STATUSES], ["reason", "Reason", "DownloadInstallSucceeded"]],
    body: ({ account, device, campaign, status, reason }) =>
      upgrade(
        "upgradeProgress",
        account,
        campaign,
        {},
        { deviceId: device, status, ...(reason && { resultReason: reason }) },
      ),
  },
  upgradeScheduled: {
    text: "An upgrade is scheduled",
    fields: [DEVICE, CAMPAIGN],
    body: ({ account, device, campaign }) =>
      upgrade(
        "upgradeScheduled",
        account,
        campaign,
        { status: "CampaignScheduled" },
        { deviceId: device, status: "Accepted" },
      ),
  },
  firmwareList: {
    text: "New firmware is available",
    fields: [
      ["make", "Make", "Maker"],
      ["model", "Model", "Model-1"],
      ["fromVersion", "From version", "1.0"],
      ["toVersion", "To version", "2.0"],
    ],
    body: ({ account, ...firmware }) => {
      const launchDate = new Date().toISOString().slice(0, 10);
      const known = { firmwareName: FIRMWARE, participantName: account, launchDate, releaseNote: "" };
      return { accountName: account, type: "firmwareList", firmwareList: [{ ...known, ...firmware }] };
    },
  },
  pasted: { text: "Pasted JSON", fields: [], body: ({ json }) => json },
};

const upgrade = (type, account, campaign, more, device) => ({
  accountName: account,
  type,
  firmwareList: [],
  [type]: { firmwareName: FIRMWARE, upgradeId: campaign, campaignId: campaign, ...more, deviceList: [device] },
});

export async function showSend(context, account = "") {
  let kind = "upgradeProgress";
  let id = null;
  const load = async () => {
    if (!id) return null;
    const path = `/v1/messages/${segment(id)}`;
    const [message, why] = await Promise.all([read(path, context.signal), read(`${path}/why`, context.signal)]);
    return { message, why };
  };
  const send = async (given) => {
    const body = KINDS[kind].body(given);
    const text = typeof body === "string" ? body : JSON.stringify(body);
    ({ id } = await post(
      accountPath(given.account, "messages"),
      text,
      given.device ? { "Ordering-Key": given.device } : {},
    ));
    notify("");
    await context.refresh();
  };
  const choose = ({ target }) => {
    kind = target.value;
    account = target.closest("section").querySelector("[name=account]").value;
    return context.refresh();
  };
  const kinds = el(
    "select",
    { name: "kind", change: choose },
    Object.entries(KINDS).map(([value, { text }]) => el("option", { value }, text)),
  );
  const chosen = el("div", { class: "stack" }, field("Kind", kinds));
  const make = (sent) => [
    heading("Send a test message"),
    sent && arrival(sent),
    panel(
      null,
      chosen,
      form(
        { "data-key": `form-${kind}`, class: "stack" },
        send,
        field(
          "Account",
          input("account", { required: true, maxlength: "64", value: account, placeholder: "0000123456-00001" }),
        ),
        KINDS[kind].fields.map(([name, text, value]) =>
          field(
            text,
            Array.isArray(value)
              ? select(
                  name,
                  value.map((one) => [one, one]),
                )
              : input(name, { value }),
          ),
        ),
        kind === "pasted" &&
          field(
            "JSON object",
            el("textarea", { name: "json", rows: "10", required: true, spellcheck: "false" }),
            "Delivered byte for byte.",
          ),
        row(
          el("button", { class: "primary" }, "Send"),
          muted("It goes to the account's registered callback like any other message."),
        ),
      ),
    ),
  ];
  return { load, make, wants: (_, event) => event.id === id };
}

const BANNERS = {
  delivered: ["ok", "It arrived"],
  dead: ["bad", "It was given up"],
  pending: ["warn", "It was accepted, and waits"],
};

const arrival = ({ message, why }) =>
  banner(
    ...BANNERS[why.state],
    paragraph(link(message.id, "message", message.id), " ", deliveryState(message.deliveries[0])),
    why.reasons.map(({ text }) => paragraph(text)),
  );
