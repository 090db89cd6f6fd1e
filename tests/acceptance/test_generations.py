"""Every generation of the official Python SDK that PyPI has, in an environment of its own, against `fotahook serve`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fotahook
from tests.deadlines import DEADLINE

from ..cli.processes import running

FOLDER = Path(__file__).parent / "generations"
INSTALLED = FOLDER.parent.parent.parent / ".venv" / "generations"
URL = "https://example.com/listener"
OTHER = "0000123456-00002"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("serve", "--dev", "--port", "0", cwd=tmp_path_factory.mktemp("service")) as service:
        yield service.url


def run(generation: str, base_url: str, *arguments: str) -> list[str]:
    packages = INSTALLED / generation
    assert packages.is_dir(), "rm .venv/ready; make .venv/ready"
    done = subprocess.run(
        # -S: nothing of this project's environment.
        [sys.executable, "-S", str(FOLDER / "calls.py"), generation, base_url, *arguments],
        env={"PYTHONPATH": str(packages), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("generation", ["sdksio-verizon-apis-sdk", "apimatic-verizon-sdk"])
def test_all_calls_of_a_generation_work(base_url: str, generation: str) -> None:
    nothing, registered, updated, listed, refused, deregistered = run(generation, base_url)
    assert nothing == "None"
    assert [registered, updated, listed] == [URL] * 3
    assert refused.startswith("FotaV2ResultException 400 ")
    assert deregistered == "True"


def test_the_newest_generation_sends_no_body_and_cannot_read_an_empty_list(base_url: str) -> None:
    """Its register and update have no argument for the URL; the service answers both as it answers any bad body."""
    with fotahook.Client(
        base_url=base_url,
        thingspace_oauth_credentials=fotahook.ThingspaceOauthCredentials("dev", "dev-secret"),
        vz_m2m_token_credentials=fotahook.SessionCredentials("dev", "dev-password"),
    ) as client:
        client.callbacks.register_callback(OTHER, URL)
        token = client._pipeline.session.value
        assert token is not None
        said = run("vz-apimatic-v-4-sdk", base_url, token.reveal(), OTHER)
    no_body = "ApiError 400 INVALID_PARAMETER"
    assert said == ["ValueError None None", no_body, no_body, URL, "True"]
