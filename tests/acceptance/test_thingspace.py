"""A campaign on which everything happens that ThingSpace was seen to do: in the end every device's status is right.

FAULT_ROUNDS=20 adds so many random seeds, told in the tests' names; FAULT_SEEDS="7 8" repeats some.
"""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fotahook.contract.messages import FINAL_RANK, place
from fotahook.testing import Sandbox
from tests.acceptance.bad_campaign import BadCampaign, a_receiver, listen, reconcile
from tests.faults.schedule import seeds


@pytest.mark.parametrize("seed", seeds())
def test_a_campaign_with_every_trouble_at_random_ends_with_every_device_right(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fotahook.listener.ledger.PAUSE_SECONDS", 0.0)
    with Sandbox(profile="thingspace", seed=seed) as sandbox, a_receiver(tmp_path, listen) as receiver:
        campaign = BadCampaign(sandbox, receiver, "inbox.db", seed)
        campaign.run()
        truth = campaign.truth()
        repaired, counted, ledger = asyncio.run(reconcile(campaign, tmp_path))
    assert len(truth) == campaign.devices
    assert ledger == truth
    handled: list[Any] = [msgspec.json.decode(line) for line in (tmp_path / "handled").read_bytes().splitlines()]
    # Something was lost; all that was repaired, the campaign itself apart, was counted and told to the handler.
    told = {message_id for message_id, source, seen in handled if source == "report" and seen}
    assert 0 < len(told) == counted
    assert repaired - counted in (0, 1)
    # A handler that was killed is called again for the same message.
    results = defaultdict[tuple[str, str], set[str]](set)
    for message_id, _, seen in handled:
        for device, status, is_stale in seen:
            if not is_stale and place(status)[1] >= FINAL_RANK:
                results[device, place(status)[0]].add(message_id)
    assert {device for device, _ in results} == set(truth)
    assert {key: ids for key, ids in results.items() if len(ids) > 1} == {}
    assert all((device, status) in results for device, status in truth.items())
