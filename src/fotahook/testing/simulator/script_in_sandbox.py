"""A fault script in the sandbox: a whole campaign through everything that goes wrong, by the clock of the sandbox."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from fotahook.client import OperatorClient
from fotahook.contract.operator import BatchMessage, Refused

from ..sandbox.fault_injection import DeliveryFaults
from .campaigns import CampaignMessage
from .fault_script import CertificateStep, DelayStep, DropStep, DuplicateStep, ErrorStep, FaultScript, ReceiverStep
from .script_runner import play
from .simulation import Simulation

if TYPE_CHECKING:
    from ..sandbox.sandbox import Sandbox

_BATCH: Final = 500


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign came to. `outcomes` counts attempts; `faults_left` are those that nobody met."""

    sent: int
    delivered: int
    undelivered: int
    outcomes: Mapping[str, int]
    faults_left: int


def rehearse(sandbox: "Sandbox", operator: OperatorClient, script: FaultScript, campaign: Simulation) -> Rehearsed:
    """Publish a campaign, step by step; before each step, and at the end, everything is delivered that can be."""
    stage = _Rehearsal(sandbox, operator, campaign.account)
    before = len(sandbox.deliveries())
    sent = play(campaign, script, stage)
    attempts = sandbox.deliveries()[before:]
    delivered = len({one.id for one in attempts if one.outcome == "delivered"} & stage.published)
    return Rehearsed(
        sent=sent,
        delivered=delivered,
        undelivered=sent - delivered,
        outcomes=dict(Counter(one.outcome for one in attempts)),
        faults_left=sandbox.faults.left,
    )


class _Rehearsal:
    """The sandbox as a stage."""

    def __init__(self, sandbox: "Sandbox", operator: OperatorClient, account: str) -> None:
        self._sandbox = sandbox
        self._operator = operator
        self._account = account
        self.published: set[str] = set()

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        stream, sent = iter(messages), 0
        while batch := [self._line(message) for message in islice(stream, _BATCH)]:
            for answer in self._operator.publish_batch(batch):
                if isinstance(answer, Refused):
                    raise ValueError(f"a message of the campaign was refused: {answer.error_message}")
                self.published.add(answer.id)
            sent += len(batch)
            self._sandbox.drain(_DRAIN_SECONDS)
        return sent

    def pause(self, seconds: float) -> None:
        self._sandbox.advance(seconds)

    def break_receiver(self, step: ReceiverStep) -> None:
        arrange(self._sandbox.faults, step)

    def _line(self, message: CampaignMessage) -> BatchMessage:
        return BatchMessage(self._account, message.body, ordering_key=message.device)


_DRAIN_SECONDS: Final = 120.0
"""For one batch; no test waits that long for anything but a sandbox that hangs."""


def arrange(faults: DeliveryFaults, step: ReceiverStep) -> None:
    """Ask for what a step says."""
    match step:
        case ErrorStep():
            faults.answer_deliveries(step.status, times=step.times, retry_after=step.retry_after)
        case DropStep():
            faults.drop_deliveries(times=step.times)
        case DelayStep():
            faults.delay_deliveries(step.seconds, times=step.times)
        case DuplicateStep():
            faults.duplicate_deliveries(times=step.times)
        case CertificateStep():
            faults.distrust_deliveries(times=step.times)
