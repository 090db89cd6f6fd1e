"""`fotahook demo`: runs the example program of the same name."""

import runpy
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number


def demo(*, devices: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 200) -> int:
    """Show the whole loop: a service and a listener behind TLS, one callback, a campaign of messages.

    Everything happens in a temporary folder, in processes that end with the demo. Exit code 0 only if nothing was lost.

    Example: fotahook demo --devices 20

    Args:
        devices: How many devices the campaign has; most have three messages.
    """
    package = Path(__file__).parents[1]
    # An installed package has a copy of the checkout's example.
    installed, checkout = package / "examples" / "demo.py", package.parents[1] / "examples" / "demo.py"
    program = runpy.run_path(str(installed if installed.exists() else checkout))
    code: int = program["main"](devices)
    return code
