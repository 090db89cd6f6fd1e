"""`fotahook simulate`: a campaign's messages, through a service or straight to a listener."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from fotahook.contract.addresses import EVERYWHERE
from fotahook.contract.errors import FotahookError
from fotahook.contract.urls import account_refusal, url_refusal
from fotahook.testing import targets
from fotahook.testing.simulator import fault_script
from fotahook.testing.simulator.campaign import Simulation
from fotahook.testing.simulator.fault_script import FaultScript, read_fault_script, run_script
from fotahook.testing.targets import Advance, NotSent, Result, Target

from ..hosting.flags import check_pem_files
from .shared.arguments import Account
from .shared.errors import INTERRUPTED, REFUSED, UNREACHABLE, Failure, UsageError, flag_named
from .shared.output import counting, note, print_json, print_table
from .shared.remote import DEFAULTS, Remote

OURS: Final = "ours: Verizon publishes no V2 message"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Options of `fotahook simulate`."""

    devices: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000_000))] = 1000
    "How many devices the campaign has."
    rate: Annotated[float, Parameter(validator=Number(gte=0, lte=100_000))] = 200.0
    "Messages a second; 0 for as many as possible."
    failures: str = "2%"
    "Share of the devices that fail, such as 2% or 0.02."
    seed: str = "7"
    "The same seed gives the same messages, byte for byte."
    profile: Literal["v1", "v2", "thingspace"] = "v2"
    "Structure of the messages: v1 as Verizon publishes it, v2 as we infer it; thingspace sends v2 as ThingSpace does."
    to: str | None = None
    "Post straight to this listener, unsigned and each message once, without a service."
    former_to: str | None = None
    "With --profile thingspace: the URL that --to replaces; half of the messages still go there."
    ca_file: Path | None = None
    "With --to: authorities (PEM) of the listener's certificate, in place of the system's."
    fault_script: Path | None = None
    "TOML file with faults to inject; see docs/testing.md."


def simulate(account: Account, /, *, options: SimulateOptions = SimulateOptions(), remote: Remote = DEFAULTS) -> None:
    """Send the messages of a campaign: its schedule, the result of each device and why, its end.

    Exit code 1 if some messages were not delivered, as far as this is known here.

    Example: fotahook simulate 0000123456-00001 --devices 100 --to http://127.0.0.1:8081/
    """
    campaign = _campaign(account, options)
    script = _script(options)
    began = time.monotonic()
    with counting(campaign.count, "sent") as advance, _target(account, options, remote, script, advance) as target:
        if isinstance(target, targets.ThingspaceTarget):
            note(f"to change the callback meanwhile: fotahook callbacks … --base-url {target.sandbox.base_url} --local")
        result = _send(campaign, script, target, options.seed)
    facts: dict[str, str | int | float] = {
        "account": account,
        "campaign": campaign.campaign_id,
        "profile": options.profile,
        "devices": options.devices,
        "messages": campaign.count,
        "sent": target.sent,
        **result.counts,
        "seconds": round(time.monotonic() - began, 3),
    }
    if remote.as_json:
        print_json({**facts, "profileIsOurs": campaign.profile == "v2"})
    else:
        facts["profile"] = f"{options.profile} ({OURS})" if campaign.profile == "v2" else "v1"
        print_table(None, facts.items())
    if result.lost is not None:
        raise Failure(result.lost)
    if result.held is not None:
        note(result.held)


def _send(campaign: Simulation, script: FaultScript, target: Target, seed: str) -> Result:
    """Send the campaign; if that ends early, say how many messages were sent."""
    try:
        run_script(campaign, script, target, seed=seed)
        return target.finish()
    except KeyboardInterrupt as error:
        raise Failure(f"interrupted; {target.sent} of {campaign.count} messages were sent", INTERRUPTED) from error
    except (NotSent, FotahookError) as error:
        if target.sent:
            note(f"{target.sent} of {campaign.count} messages were sent")
        if isinstance(error, NotSent):
            raise Failure(str(error), REFUSED if error.refused else UNREACHABLE) from error
        raise


def _target(
    account: str, options: SimulateOptions, remote: Remote, script: FaultScript, advance: Advance
) -> AbstractContextManager[Target]:
    if options.to is not None and options.profile == "thingspace":
        return targets.thingspace_target(account, options.former_to, options.to, options.seed, options.rate, advance)
    if options.to is not None:
        return targets.listener_target(options.to, options.ca_file, options.rate, advance)
    return targets.service_target(account, remote.operator(), remote.client, script, options.rate, advance)


def _campaign(account: str, options: SimulateOptions) -> Simulation:
    if (refusal := account_refusal(account)) is not None:
        raise UsageError(f"{account!r}: {refusal}")
    for flag, url in {"--to": options.to, "--former-to": options.former_to}.items():
        if url is not None and (refusal := url_refusal(url, allow_http=True, allowed=EVERYWHERE)) is not None:
            raise UsageError(f"{flag} {url}: {refusal}")
    if options.ca_file is not None and options.to is None:
        raise UsageError("--ca-file goes with --to; a service is called with the system's authorities")
    if options.profile == "thingspace" and (options.to is None or options.ca_file is not None):
        raise UsageError("--profile thingspace sends to a listener: give --to URL, and no --ca-file")
    if options.profile != "thingspace" and options.former_to is not None:
        raise UsageError("--former-to goes with --profile thingspace, whose sender goes on with it for some minutes")
    check_pem_files(ca_file=options.ca_file)
    return Simulation(
        account,
        devices=options.devices,
        failures=_share(options.failures),
        seed=options.seed,
        profile="v1" if options.profile == "v1" else "v2",
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
    with flag_named("--fault-script"):
        script = read_fault_script(options.fault_script)
    own = fault_script.Duplicate | fault_script.Pause | fault_script.Reorder
    others = [step for step in script.steps if not isinstance(step, own)]
    if others and options.to is not None and options.profile != "thingspace":
        name = others[0].__struct_config__.tag
        raise UsageError(f"--fault-script: {name} is the receiver's, and with --to that is yours; leave out --to")
    return script
