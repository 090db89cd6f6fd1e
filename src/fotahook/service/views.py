"""Records of the store as our own calls answer them."""

from ..contract import operator
from ..contract.events import AttemptFinished, CallbackChanged, EventData, LaneChanged, MessageAccepted, MessageDead
from ..contract.operator import AccountState, Backlog, LaneState, MessageState, RegisteredCallback
from ..store import events
from ..store.base import Account, Callback, CallbackChange, Lane, Limits, Message, Placement
from ..store.events import Happened
from ..store.views import lane_name, message_state, moment, moment_or_none


def unknown_account(account: str, limits: Limits) -> AccountState:
    """An account with neither a callback nor a message so far: its lane would be born held."""
    lane, backlog = LaneState(state="held"), Backlog(pending=0, dead=0)
    return AccountState(account=account, callback=None, lane=lane, backlog=backlog, limits=_limits(limits), known=False)


def account_state(account: Account, *, known: bool) -> AccountState:
    lane = account.lane
    return AccountState(
        account=account.account,
        callback=None if account.callback is None else _callback(account.callback),
        lane=_lane(lane, account.limits),
        backlog=Backlog(
            pending=lane.pending, dead=lane.dead, oldest_accepted_at=moment_or_none(lane.oldest_accepted_at)
        ),
        limits=_limits(account.limits),
        known=known,
    )


def message(stored: Message, now: float, time_to_live: float) -> MessageState:
    def expires_at(place: Placement) -> float | None:
        # While the lane is held or paused nobody can know when it will have lived for long enough.
        return now + time_to_live - place.age if place.state == "pending" and not place.stopped else None

    return message_state(stored, expires_at)


def callback_change(change: CallbackChange, before: CallbackChange | None) -> operator.CallbackChange:
    """A change of a callback; `before` is the one that it followed."""
    replaced = before is not None and before.url is not None
    return operator.CallbackChange(
        url=change.url,
        action=_action(change.url, replaced),
        actor=change.actor,
        at=moment(change.at),
        revision=change.revision,
    )


def event(happened: Happened) -> EventData:
    """What happened, as events tell it."""
    account, at = happened.account, moment(happened.at)
    match happened:
        case events.MessageAccepted():
            return MessageAccepted(
                id=happened.message,
                account=account,
                at=at,
                type=happened.type,
                ordering_key=happened.ordering_key,
                size=happened.size,
            )
        case events.AttemptFinished():
            return _attempt_finished(happened)
        case events.MessageDead():
            lane = lane_name(account, happened.consumer)
            return MessageDead(id=happened.message, account=account, at=at, lane=lane, error_code=happened.error_code)
        case events.LaneChanged():
            return LaneChanged(
                account=account,
                at=at,
                lane=lane_name(account, happened.consumer),
                state=happened.state,
                until=moment_or_none(happened.until),
                reason=happened.reason,
            )
    assert isinstance(happened, events.CallbackChanged)
    return CallbackChanged(
        account=account,
        at=at,
        action=_action(happened.url, happened.before),
        actor=happened.actor,
        revision=happened.revision,
        url=happened.url,
    )


def _attempt_finished(happened: events.AttemptFinished) -> AttemptFinished:
    return AttemptFinished(
        id=happened.message,
        account=happened.account,
        at=moment(happened.at),
        lane=lane_name(happened.account, happened.consumer),
        number=happened.number,
        started_at=moment(happened.started_at),
        outcome=happened.outcome,
        state=happened.state,
        url=happened.url,
        http_status=happened.status,
        error_code=happened.error_code,
        milliseconds=happened.milliseconds,
    )


def _action(url: str | None, replaced: bool) -> str:
    return "deregistered" if url is None else "replaced" if replaced else "registered"


def _callback(callback: Callback) -> RegisteredCallback:
    return RegisteredCallback(
        url=callback.url, revision=callback.revision, registered_at=moment(callback.registered_at)
    )


def _lane(lane: Lane, limits: Limits) -> LaneState:
    window = lane.health.window if limits.in_flight is None else min(lane.health.window, limits.in_flight)
    return LaneState(
        state=lane.state,
        reason=lane.health.reason,
        until=moment_or_none(lane.until),
        in_flight=window if lane.state == "open" else 0,
        failures=lane.health.failures,
    )


def _limits(limits: Limits) -> operator.Limits:
    return operator.Limits(in_flight=limits.in_flight, per_second=limits.per_second)
