"""Playing a fault script: a campaign is sent, and at each step something happens. Where to is the stage's business."""

from collections.abc import Iterable
from itertools import islice
from random import Random
from typing import Protocol

from .campaigns import CampaignMessage
from .fault_script import FaultScript, PauseStep, ReceiverStep, ReorderStep


class Stage(Protocol):
    """Where a campaign is sent to, and what can go wrong there."""

    def send(self, messages: Iterable[CampaignMessage]) -> int:
        """Send messages, one after the other; how many."""

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""

    def break_receiver(self, step: ReceiverStep) -> None:
        """Let the receiver do what the step says."""


def play(messages: Iterable[CampaignMessage], script: FaultScript, stage: Stage, *, seed: int | str = 0) -> int:
    """Send a campaign through a script; how many messages were sent.

    `seed` orders what a reorder step shuffles. Steps that begin after the last message do not happen.
    """
    stream, sent = iter(messages), 0
    chance = Random(f"fotahook play {seed}")
    for step in script.steps:
        sent += stage.send(islice(stream, max(0, step.after - sent)))
        if sent < step.after:
            return sent
        match step:
            case ReorderStep():
                window = list(islice(stream, step.messages))
                chance.shuffle(window)
                sent += stage.send(window)
            case PauseStep():
                stage.pause(step.seconds)
            case _:
                stage.break_receiver(step)
    return sent + stage.send(stream)
