"""Servers that treat the app in ways of their own: Mangum runs the lifespan for each event, hypercorn may run trio."""

import json
import subprocess
import sys
from pathlib import Path

from tests.deadlines import DEADLINE

LAMBDA = """
import json, sys, fotahook
from mangum import Mangum

listener = fotahook.Listener(inbox="sqlite:///inbox.db")
handled = []

@listener.on_any
def handle(message):
    handled.append(json.loads(message.raw)["n"])

handler = Mangum(listener, lifespan="auto")
for event in json.load(sys.stdin):
    print(handler(event, None)["statusCode"])
print(handled)
"""
APP = """
import fotahook

app = fotahook.Listener(inbox="sqlite:///inbox.db")
"""


def event(number: int) -> dict[str, object]:
    """What API Gateway gives to a function."""
    http = {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "x"}
    body = json.dumps({"accountName": "0000123456-00001", "type": "upgradeProgress", "n": number})
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "content-length": str(len(body))},
        "requestContext": {"http": http, "domainName": "x", "stage": "$default", "requestId": str(number)},
        "body": body,
        "isBase64Encoded": False,
    }


def test_mangum_with_a_lifespan_of_its_own_handles_each_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAMBDA],
        cwd=tmp_path,
        input=json.dumps([event(0), event(1)]),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout.splitlines() == ["200", "200", "[0, 1]"], done.stderr


def test_hypercorn_with_trio_is_refused_at_the_start_in_words(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0", "app:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "the listener cannot start: it needs an event loop of asyncio" in done.stderr
