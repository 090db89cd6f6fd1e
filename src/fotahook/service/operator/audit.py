"""The audit log: who changed credentials, grants, keys, callbacks and limits, and who paused or redelivered."""

from ...contract.operator import AuditPage
from ...store import views
from ..requests import PageSize, Params
from ..routing import Call, Endpoint


class AuditQuery(Params, frozen=True):
    """Of which account; without one, of all that are granted."""

    account: str | None = None
    cursor: str | None = None
    limit: PageSize = 50


@Endpoint("GET", "/v1/audit", query=AuditQuery)
async def list_audit(call: Call) -> AuditPage:
    """The audit log, newest first. Entries of no single account are for those to whom all accounts are granted."""
    query = call.query(AuditQuery)
    before = call.service.cursors.open_number(query.cursor)
    found = await call.service.store.audit(among=call.among(query.account), before=before, limit=query.limit)
    more = call.service.cursors.seal(found[-1].number) if len(found) == query.limit else None
    return AuditPage(entries=[views.audit_entry(each) for each in found], cursor=more)
