"""`fotahook simulate` and `demo`: a campaign's messages, through a service or straight to a listener."""

import contextlib
import runpy
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from fotahook.client import Client
from fotahook.contract.addresses import EVERYWHERE, account_refusal, url_refusal, without_password
from fotahook.contract.errors import FotahookError
from fotahook.testing.sandbox import targets
from fotahook.testing.simulator.campaign import Profile, Simulation
from fotahook.testing.simulator.faults import Duplicate, FaultScript, Pause, Reorder, read_fault_script, run_script

from ..hosting.flags import check_pem_files
from .shared.arguments import Account, flag_class
from .shared.errors import INTERRUPTED, REFUSED, UNREACHABLE, Failure, UsageError, flag_named
from .shared.output import counting, note, print_json, print_table
from .shared.sources import Remote


@flag_class
class SimulateOptions:
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


def simulate(account: Account, /, *, options: SimulateOptions = SimulateOptions(), remote: Remote = Remote()) -> None:
    """Send the messages of a campaign: its schedule, the result of each device and why, its end.

    Exit code 1 if some messages were not delivered, as far as this is known here.
    """
    (campaign, script), rate, to = _planned(account, options), options.rate, options.to
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(counting(campaign.count, "sent"))
        target: targets.Target
        if to is None:
            faulty = any(not isinstance(step, Pause | Reorder) for step in script.steps)
            operator, connect = remote.operator(), partial(remote.client, Client)
            target = stack.enter_context(targets.service_target(account, operator, connect, faulty, rate, advance))
        elif options.profile == "thingspace":
            from fotahook.testing.sandbox.sandbox import thingspace_target

            former, seed = options.former_to, options.seed
            target = stack.enter_context(thingspace_target(account, former, to, seed, rate, advance))
        else:
            target = stack.enter_context(targets.listener_target(to, options.ca_file, rate, advance))
        if target.note is not None:
            note(target.note)
        try:
            run_script(campaign, script, target, seed=options.seed)
            result = target.finish()
        except (KeyboardInterrupt, targets.NotSent, FotahookError) as error:
            sent = f"{target.sent} of {campaign.count} messages were sent"
            if isinstance(error, KeyboardInterrupt):
                raise Failure(f"interrupted; {sent}", INTERRUPTED) from error
            if target.sent:
                note(sent)
            if isinstance(error, targets.NotSent):
                raise Failure(str(error), REFUSED if error.refused else UNREACHABLE) from error
            raise
    is_ours = campaign.profile == "v2"
    facts: dict[str, str | int | float] = {
        "account": account,
        "campaign": campaign.campaign_id,
        "profile": options.profile + " (ours: Verizon publishes no V2 message)" * (is_ours and not remote.as_json),
        "devices": options.devices,
        "messages": campaign.count,
        "sent": target.sent,
        **result.counts,
        "seconds": round(time.monotonic() - began, 3),
    }
    if remote.as_json:
        print_json({**facts, "profileIsOurs": is_ours})
    else:
        print_table(None, facts.items())
    if result.lost is not None:
        raise Failure(result.lost)
    if result.held is not None:
        note(result.held)


def _planned(account: str, options: SimulateOptions) -> tuple[Simulation, FaultScript]:
    if (refusal := account_refusal(account)) is not None:
        raise UsageError(f"{account!r}: {refusal}")
    for flag, url in {"--to": options.to, "--former-to": options.former_to}.items():
        if url is not None and (refusal := url_refusal(url, allow_http=True, allowed=EVERYWHERE)) is not None:
            raise UsageError(f"{flag} {without_password(url)}: {refusal}")
    if options.ca_file is not None and options.to is None:
        raise UsageError("--ca-file goes with --to; a service is called with the system's authorities")
    if options.profile == "thingspace" and (options.to is None or options.ca_file is not None):
        raise UsageError("--profile thingspace sends to a listener: give --to URL, and no --ca-file")
    if options.profile != "thingspace" and options.former_to is not None:
        raise UsageError("--former-to goes with --profile thingspace, whose sender goes on with it for some minutes")
    check_pem_files(ca_file=options.ca_file)
    with flag_named("--fault-script"):
        script = FaultScript() if options.fault_script is None else read_fault_script(options.fault_script)
    others = [step for step in script.steps if not isinstance(step, Duplicate | Pause | Reorder)]
    if others and options.to is not None and options.profile != "thingspace":
        name = others[0].__struct_config__.tag
        raise UsageError(f"--fault-script: {name} is the receiver's, and with --to that is yours; leave out --to")
    with contextlib.suppress(ValueError):
        share = float(options.failures.removesuffix("%")) / (100 if options.failures.endswith("%") else 1)
        if 0 <= share <= 1:
            profile: Profile = "v1" if options.profile == "v1" else "v2"
            devices, seed = options.devices, options.seed
            return Simulation(account, devices=devices, failures=share, seed=seed, profile=profile), script
    raise UsageError(f"--failures {options.failures}: choose 0% to 100%, or 0 to 1")


def demo(*, devices: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 200) -> int:
    """Show the whole loop: a service and a listener behind TLS, one callback, a campaign of messages.

    Everything happens in a temporary folder, in processes that end with the demo. Exit code 0 only if nothing was lost.

    Args:
        devices: How many devices the campaign has; most have three messages.
    """
    # An installed package has a copy of the checkout's example.
    places = (folder / "examples" / "demo.py" for folder in (Path(__file__).parents[1], Path(__file__).parents[3]))
    code: int = runpy.run_path(str(next(filter(Path.exists, places))))["main"](devices)
    return code
