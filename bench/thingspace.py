"""A campaign of 2,000 devices as ThingSpace sends it, with all that was seen to go wrong: whose devices end up wrong.

`python -m bench.thingspace RECEIVER` measures one receiver and prints JSON.
"""

import asyncio
import json
import logging
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn
from tests.acceptance.bad_campaign import BadCampaign, Serve, a_receiver, listen, reconcile

from bench import rig
from bench.report import Figure, Report
from fotahook.contract.messages import place
from fotahook.testing import Sandbox

SEEDS = (1, 2, 3)
DATABASES = {"plain": "plain.db", "listener": "inbox.db"}
Known = Mapping[str, str | None]
PEERS = ("fastapi",)


def main(report: Report) -> None:
    found = {name: rig.run("bench.thingspace", name) for name in DATABASES}
    report.table(
        (f"devices of 2,000 with a wrong last status, mean of {len(SEEDS)} campaigns", ""),
        [
            ("FastAPI, one commit for each message", found["plain"]["wrong"]),
            ("listener, before reconciliation", found["listener"]["before"]),
        ],
    )
    report.compare([Figure("listener, after reconciliation: wrong devices", found["listener"]["wrong"], at_most=0)])


def plain(folder: Path, port: int, path: str, former: str | None, ready: Connection) -> None:
    """FastAPI as users write it: each message is parsed and its devices are written to a table, with one commit."""
    from fastapi import FastAPI, Request

    app = FastAPI(on_startup=[lambda: ready.send(None)])
    db = sqlite3.connect(folder / "plain.db", check_same_thread=False)
    db.execute("create table if not exists devices (id text primary key, status text)")

    @app.post(path)
    async def receive(request: Request) -> None:
        content = await request.json()
        for device in (content.get("upgradeProgress") or {}).get("deviceList", ()):
            db.execute("replace into devices values (?, ?)", (device["deviceId"], device["status"]))
        db.commit()

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")


def devices_of(folder: Path) -> Known:
    """What the plain receiver knows."""
    with closing(sqlite3.connect(folder / "plain.db")) as db:
        return {device: place(status)[0] for device, status in db.execute("select id, status from devices")}


def measure(name: str, seed: int) -> rig.Found:
    """One campaign: the number of wrong devices, for the listener also before it is reconciled."""
    serve: Serve = {"plain": plain, "listener": listen}[name]
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(profile="thingspace", seed=seed) as sandbox,
        a_receiver(Path(folder), serve) as receiver,
    ):
        campaign = BadCampaign(sandbox, receiver, DATABASES[name], seed)
        campaign.run()
        truth = campaign.truth()
        if name == "plain":
            return {"wrong": _wrong(devices_of(Path(folder)), truth)}
        repaired, _, known = asyncio.run(reconcile(campaign, Path(folder)))
        return {"wrong": _wrong(known, truth), "before": repaired}


def _wrong(known: Known, truth: Known) -> int:
    return sum(known.get(device) != status for device, status in truth.items())


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    rounds = [measure(sys.argv[1], seed) for seed in SEEDS]
    print(json.dumps({figure: sum(one[figure] for one in rounds) / len(rounds) for figure in rounds[0]}))
