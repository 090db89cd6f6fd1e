"""The statuses of an upgrade, in the order of its life cycle.

V1's are those of its upgrades. V2's are on its life-cycle page, which spells one ``UpgradedFailed``; device histories
of V2 and V3 spell it ``UpgradeFailed``. What the statuses of an upgrade in progress are is published only for V1, so an
unknown status counts as one of these (docs/thingspace.md, Messages).
"""

from typing import Final

SUCCEEDED: Final = frozenset({"UpgradeSuccess", "Finished"})
"""Statuses that say that an upgrade succeeded."""
FAILED: Final = frozenset(
    {
        "CampaignAborted",
        "CampaignCancelled",
        "CampaignFailed",
        "CampaignRequestFailed",
        "DeviceRejected",
        "RequestFailed",
        "UpgradeFailed",
        "UpgradedFailed",
    }
)
"""Statuses that say that an upgrade ended without success: it failed, was refused, or was cancelled."""

FINAL_RANK: Final = 5
"""Ranks from here on are of results, after which nothing more is to come."""
_IN_PROGRESS: Final = 4
_RANKS: Final = {
    **dict.fromkeys(("CampaignRequestPending", "RequestPending", "AddDeviceSucceed", "LicenseAssignSuccess"), 1),
    **dict.fromkeys(("CampaignQueued", "Queued", "CampaignPreScheduled", "Accepted"), 2),
    "CampaignScheduled": 3,
    **dict.fromkeys(FAILED - {"UpgradedFailed"}, FINAL_RANK),
    # A success is not undone: what says that the upgrade failed is older.
    **dict.fromkeys((*SUCCEEDED, "CampaignEnded"), FINAL_RANK + 1),
}
_PLACES: Final = {status: (status, rank) for status, rank in _RANKS.items()} | {
    other: (status, _RANKS[status])
    for other, status in (("UpgradedFailed", "UpgradeFailed"), ("CampaignRequestQueued", "CampaignQueued"))
}


def place(status: str) -> tuple[str, int]:
    """A status in the one of its spellings that is compared, and its rank: higher for what comes later."""
    return _PLACES.get(status) or (status, _IN_PROGRESS)
