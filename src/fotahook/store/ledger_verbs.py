"""The verbs of a store about the ledger, alike on every engine."""

from collections.abc import Collection

from fotahook.contract.life_cycle import FINAL_RANK

from . import ledger_records
from .ledger import campaign_ids
from .rows import read
from .session import NEWEST, Engine, Session


class LedgerVerbs(Engine):
    """Base of the stores, for what they keep of campaigns and devices."""

    async def expect(
        self,
        account: str,
        campaign: str,
        devices: Collection[str] = (),
        *,
        ends_at: float | None = None,
        cursor: str | None = None,
    ) -> None:
        """Enter a campaign into the ledger, and devices that are to report; those that did already stay as they are.

        None leaves the end, and how far the report was read, as they are.
        """

        async def job(db: Session) -> None:
            ids = await campaign_ids(db, {(account, campaign)})
            number = ids[account, campaign]
            await db.rows("change_campaign", campaign=number, ends_at=ends_at, cursor=cursor)
            await db.rows("expect_devices", campaign=number, devices=sorted(set(devices)))

        await self._write(job)

    async def ledger_campaigns(
        self, *, name: tuple[str, str] | None = None, after: int = 0, limit: int
    ) -> list[ledger_records.LedgerCampaign]:
        """Campaigns in the ledger by id, above `after`; with a `name`, an account and a campaign, only that one."""
        account, campaign = name or (None, None)
        values = {"account": account, "campaign": campaign, "after": after, "limit": limit}
        return await self._list(ledger_records.LedgerCampaign, "ledger_campaigns", **values)

    async def ledger_devices(
        self, campaign: int, *, among: Collection[str] | None = None, after: str = "", limit: int
    ) -> list[ledger_records.LedgerDevice]:
        """The devices of a campaign behind `after`, in order, all or these."""
        values = {"campaign": campaign, "among": among, "after": after, "limit": limit}
        return await self._list(ledger_records.LedgerDevice, "ledger_devices", **values)

    async def ledger_counts(self, campaign: int) -> list[ledger_records.LedgerCount]:
        """How many devices of a campaign have which status."""
        return await self._list(ledger_records.LedgerCount, "ledger_counts", campaign=campaign, final=FINAL_RANK)

    async def latest_campaigns(
        self, *, among: Collection[str] | None, campaign: str | None = None, before: int | None = None, limit: int
    ) -> list[ledger_records.LedgerCampaign]:
        """Campaigns of these accounts or of all, newest first: below an id, and by the beginning of their name."""
        values = {"among": among, "campaign": campaign, "before": NEWEST if before is None else before, "limit": limit}
        return await self._list(ledger_records.LedgerCampaign, "latest_campaigns", **values)

    async def campaign_devices(
        self, campaign: int, *, kind: str | None = None, after: str = "", limit: int
    ) -> ledger_records.DevicePage:
        """The `limit` devices of a campaign behind `after`, in order; of these, those ``succeeded``, ``failed`` or
        ``silent``."""
        values = {"campaign": campaign, "kind": kind or "", "after": after, "scan": limit, "final": FINAL_RANK}
        found = await self._query("campaign_devices", **values)
        fitting = [read(ledger_records.CampaignDevice, row) for row in found if row["fits"] and row["device"]]
        return ledger_records.DevicePage(
            devices=tuple(fitting), next=found[-1]["device"] if len(found) == limit else None
        )

    async def campaign_reasons(self, campaign: int, *, limit: int) -> list[tuple[str, int]]:
        """Why devices of a campaign failed, and how many of them, the most frequent reason first."""
        found = await self._query("campaign_reasons", campaign=campaign, failed=FINAL_RANK, limit=limit)
        return [(row["reason"], row["devices"]) for row in found]

    async def find_device(
        self, device: str, *, among: Collection[str] | None, limit: int
    ) -> list[ledger_records.LedgerReport]:
        """What was last reported of a device in each campaign of these accounts or of all, newest first."""
        return await self._list(ledger_records.LedgerReport, "find_device", device=device, among=among, limit=limit)

    async def reports_of_campaign(
        self, account: str, campaign: str, *, after: str | None = None, limit: int
    ) -> list[ledger_records.LedgerReport]:
        """What was reported of a campaign, first of itself, then of its devices in order; behind a device, if given."""
        values = {"account": account, "campaign": campaign, "after": after, "limit": limit}
        return await self._list(ledger_records.LedgerReport, "reports_of_campaign", **values)

    async def reports_of_device(
        self, account: str, device: str, *, after: str = "", limit: int
    ) -> list[ledger_records.LedgerReport]:
        """What was reported of a device ('' for the campaigns themselves) in each campaign behind `after`, in order."""
        values = {"account": account, "device": device, "after": after, "limit": limit}
        return await self._list(ledger_records.LedgerReport, "reports_of_device", **values)

    async def overdue_devices(self, seconds: float) -> int:
        """Devices without a result in campaigns that ended within the last `seconds`."""
        (row,) = await self._query("overdue_devices", seconds=seconds, final=FINAL_RANK)
        overdue: int = row["devices"]
        return overdue

    async def forget_reports(self, campaign: int, seconds: float, limit: int) -> bool:
        """Remove up to `limit` statuses from the ledger that are older than `seconds`; whether there may be more."""
        values = {"campaign": campaign, "seconds": seconds, "limit": limit}
        return len(await self._write(lambda db: db.rows("forget_reports", **values))) == limit
