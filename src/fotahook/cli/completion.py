"""`fotahook completion`: what a shell needs to complete commands and flags."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script by which a shell completes fotahook's commands, their flags, and what those may be.

    Example: fotahook completion bash > ~/.local/share/bash-completion/completions/fotahook

    Parameters
    ----------
    shell
        The shell that is to read it.
    """
    # Not before it runs: the commands name this module.
    from .commands import app

    print(app.generate_completion(prog_name="fotahook", shell=shell), end="")
