"""`fotahook simulate`: a campaign's messages, through a service or straight to a listener."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cyclopts import Parameter

from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.urls import account_refusal, url_refusal
from fotahook.testing.simulator.campaign import Profile, Simulation
from fotahook.testing.simulator.fault_script import FaultScript, ScriptInvalid, read_fault_script, run_script

from ...hosting.tls import check_pem_files
from ..shared.errors import Failure, UsageError
from ..shared.progress import counting
from ..shared.remote import DEFAULTS, Remote
from ..shared.tables import print_card, print_json
from .targets import Direct, LiveTarget, Pace, Through

MOST_DEVICES: Final = 10_000_000
FASTEST: Final = 100_000.0

OURS: Final = "ours: Verizon publishes no V2 message"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What `fotahook simulate` can be told."""

    devices: int = 1000
    "How many devices the campaign has."
    rate: float = 200.0
    "Messages a second; 0 for as many as possible."
    failures: str = "2%"
    "Share of the devices that fail, such as 2% or 0.02."
    seed: str = "7"
    "The same seed gives the same messages, byte for byte."
    profile: Profile = "v2"
    "Whose structure the messages have: v1 as Verizon publishes it, v2 as we infer it."
    to: str | None = None
    "Post straight to this listener, unsigned and each message once, with no service between."
    ca_file: Path | None = None
    "With --to: authorities (PEM) of the listener's certificate, in place of the system's."
    fault_script: Path | None = None
    "TOML file with what is to go wrong on the way; see docs/testing.md."


def simulate(account: str, /, *, options: SimulateOptions = SimulateOptions(), remote: Remote = DEFAULTS) -> None:
    """Send the messages of a campaign: what is planned, what becomes of each device and why, the end.

    Exit code 1 if some messages were not delivered, as far as this is known here.

    Example: fotahook simulate 0000123456-00001 --devices 100 --to http://127.0.0.1:8081/

    Parameters
    ----------
    account
        Whose campaign it is.
    """
    campaign = _campaign(account, options)
    script = _script(options)
    began = time.monotonic()
    with counting(campaign.count, "sent") as advance, _target(account, options, remote, script, advance) as target:
        sent = run_script(campaign, script, target, seed=options.seed)
        target.finish()
    took = time.monotonic() - began
    facts: dict[str, str | int | float] = {
        "account": account,
        "campaign": campaign.campaign_id,
        "profile": campaign.profile,
        "devices": options.devices,
        "messages": campaign.count,
        "sent": sent,
        **target.counts,
        "seconds": round(took, 3),
    }
    _tell(facts, as_json=remote.as_json)
    if target.lost is not None:
        raise Failure(target.lost)
    if target.waiting is not None:
        print(f"fotahook: {target.waiting}", file=sys.stderr)


def _tell(facts: dict[str, str | int | float], *, as_json: bool) -> None:
    if as_json:
        print_json({**facts, "profileIsOurs": facts["profile"] == "v2"})
        return
    shown = facts | ({"profile": f"v2 ({OURS})"} if facts["profile"] == "v2" else {})
    print_card({name: str(fact) for name, fact in shown.items()})


@contextmanager
def _target(
    account: str, options: SimulateOptions, remote: Remote, script: FaultScript, advance: Callable[[int], None]
) -> Iterator[LiveTarget]:
    pace = Pace(options.rate, time.monotonic, time.sleep)
    if options.to is not None:
        with Direct(options.to, options.ca_file, pace, advance) as direct:
            yield direct
    else:
        with Through(account, remote, script, pace, advance) as through:
            yield through


def _campaign(account: str, options: SimulateOptions) -> Simulation:
    """The campaign; UsageError for what cannot be meant."""
    if (refusal := account_refusal(account)) is not None:
        raise UsageError(f"{account!r}: {refusal}")
    if not 1 <= options.devices <= MOST_DEVICES:
        raise UsageError(f"--devices {options.devices}: choose 1 to {MOST_DEVICES}")
    if not 0 <= options.rate <= FASTEST:
        raise UsageError(f"--rate {options.rate:g}: choose up to {FASTEST:g} messages a second, 0 for no limit")
    if options.to is not None:
        refusal = url_refusal(options.to, allow_http=True, allowed=EVERYWHERE)
        if refusal is not None:
            raise UsageError(f"--to {options.to}: {refusal}")
        check_pem_files(ca_file=options.ca_file)
    elif options.ca_file is not None:
        raise UsageError("--ca-file goes with --to; a service is called with the system's authorities")
    return Simulation(
        account,
        devices=options.devices,
        failures=_share(options.failures),
        seed=options.seed,
        profile=options.profile,
    )


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--failures {text}: choose 0% to 100%, or 0 to 1")
    return share


def _script(options: SimulateOptions) -> FaultScript:
    if options.fault_script is None:
        return FaultScript()
    try:
        script = read_fault_script(options.fault_script)
    except ScriptInvalid as error:
        raise UsageError(f"--fault-script: {error}") from error
    if options.to is not None:
        Direct.check(script)
    return script
