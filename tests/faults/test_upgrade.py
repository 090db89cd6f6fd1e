"""Processes are replaced by those of the next version while messages come in."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import fotahook
from fotahook.store.sql import load_migrations
from tests.cli import processes

from .machines import ROOT, SECRETS
from .world import SLOW, a_world


async def command(*arguments: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    """Run a command of the fotahook at a path to its end, while everything else goes on."""
    return await asyncio.to_thread(
        lambda: processes.fotahook(*arguments, cwd=None, stdin=b"", PYTHONPATH=path, **SECRETS)
    )


def next_version(folder: Path) -> str:
    """A path with a fotahook that has one migration more than this one."""
    copy = folder / "next" / "fotahook"
    shutil.copytree(Path(fotahook.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for engine in ("sqlite", "postgres"):
        number = load_migrations(engine)[-1].number + 1
        script = copy / "store" / engine / "migrations" / f"{number:04}_extra.sql"
        script.write_text("alter table lanes add column extra text;\n")
    return f"{folder / 'next'}{os.pathsep}{ROOT}"


async def test_the_next_version_replaces_this_one_while_messages_come_in(tmp_path: Path) -> None:
    later = next_version(tmp_path)
    async with a_world("postgres", tmp_path, roles=("api", "dispatcher")) as world:
        present = list(world.nodes)
        # The next version does not start before the migration.
        refused = await command("serve", "--port", "0", "--store", world.store, path=later)
        assert refused.returncode == 1
        assert "run fotahook admin migrate" in refused.stderr
        async with world.publishing():
            await world.progressed(100)
            migrated = await command("admin", "migrate", "--store", world.store, path=later)
            assert migrated.returncode == 0, migrated.stderr
            # What runs goes on, and tells the load balancer that it is to be replaced.
            await world.progressed(200)
            status, text = await present[0].get("/readyz")
            assert (status, "migrations" in text) == (503, True)
            for node in present:
                replacement = await world.join(node.role, later)
                assert (await replacement.get("/readyz"))[0] == 200
                # Both versions serve and deliver side by side.
                await world.progressed(100)
                await world.leave(node)
            await world.progressed(200)
        # This version does not start any more.
        refused = await command("serve", "--port", "0", "--store", world.store)
        assert refused.returncode == 1
        assert "install the newer fotahook" in refused.stderr
        await world.settle()
        verdict = await world.verdict()
        print(verdict)
        assert verdict.holds
        assert verdict.duplicates.keys() <= {SLOW}
        for node in list(world.nodes):
            await world.leave(node)
