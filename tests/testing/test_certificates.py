"""Certificates made on the spot."""

import ssl
import stat
import subprocess
import sys
from pathlib import Path

from fotahook.testing import make_certificates


def test_a_client_with_the_authority_trusts_the_certificate(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "localhost", "127.0.0.1")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=made.ca_file)
    server.load_cert_chain(made.cert_file, made.key_file)
    assert shake_hands(client, server)


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "localhost")
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['trustme'] = None\n"
        "from pathlib import Path\n"
        "from fotahook.testing import make_certificates\n"
        "try: make_certificates(Path('.'), 'localhost')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "certificates need trustme: pip install 'fotahook[testing]'\n"


MOST_FLIGHTS = 10
"""A handshake has fewer turns than this."""


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    """Whether a TLS handshake in memory ends; raises what goes wrong with it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(MOST_FLIGHTS):
        ends = [end for end in ends if not is_done(end)]
    return not ends


def is_done(end: ssl.SSLObject) -> bool:
    """Let one end do its part, and whether it waits for nothing more from the other."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
