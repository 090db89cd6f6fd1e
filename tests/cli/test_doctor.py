"""`fotahook doctor` against faulty receivers, over real sockets and real TLS."""

import asyncio
import itertools
import json
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from fotahook import Listener
from fotahook.cli.doctor import ACCOUNT
from fotahook.contract import signing
from fotahook.contract.addresses import EVERYWHERE, THINGSPACE_PORTS, parse_networks
from fotahook.contract.keys import account_signing_seed, signing_seed
from fotahook.contract.operator import Check, CheckResult
from fotahook.delivery.doctor import TYPE, run_checks
from fotahook.delivery.doctor.checks import (
    MAX_ADDRESSES,
    Target,
    check_addresses,
    check_connection,
    check_port,
)
from fotahook.delivery.resolver import SystemLookup
from fotahook.delivery.sender import SenderSettings
from fotahook.testing import listener_client
from tests.deadlines import DEADLINE
from tests.delivery.test_sender import OK, Behaviour, Request, answering, read_request, receiver, status
from tests.testing.receivers import receiving

from .conftest import Run, is_one_line
from .processes import FOTAHOOK, environment

SECRET_KEY = b"k" * 32
SECRET = b"s" * 32
# Today, since the sender's own handshakes go by the machine's clock.
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)


def target(url: str, **changes: object) -> Target:
    """A target whose settings, the sender's too, are changed by name."""
    settings: dict[str, object] = {"secret_key": SECRET_KEY, "allowed_networks": EVERYWHERE, "timeout": DEADLINE}
    settings |= {name: changes[name] for name in changes if name in SenderSettings.__struct_fields__}
    changes = {name: changes[name] for name in changes if name in Target.__struct_fields__}
    return Target(
        **{"url": url, "run_id": "r", "account": ACCOUNT, "allow_http": True} | changes,  # type: ignore[arg-type]
        sender=SenderSettings(**settings),  # type: ignore[arg-type]
    )


async def check(url: str, *, now: datetime = NOW, tick: float = 0.001, **changes: object) -> dict[str, Check]:
    """The checks of a URL, by name."""
    ticks = itertools.count()
    found = await run_checks(target(url, **changes), clock=now.timestamp, monotonic=lambda: next(ticks) * tick)
    assert len({one.check for one in found}) == len(found)
    return {one.check: one for one in found}


def results(checks: dict[str, Check]) -> dict[str, CheckResult]:
    return {name: check.result for name, check in checks.items()}


# URL, port, addresses and connection


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("fota.example.com", "https://"),
        ("https://10.0.0.1/", "private"),
        ("https://user:hush@fota.example.com/", "credentials"),
        ("http://fota.example.com/", "only --dev"),
        ("https://fota.example.com/\x1b[31m", "percent-encoded"),
    ],
)
async def test_a_url_that_cannot_be_registered_ends_the_checks(url: str, why: str) -> None:
    checks = await check(url, allow_http=False, allowed_networks=())
    assert results(checks) == {"url": "fail"}
    assert why in checks["url"].found
    assert checks["url"].found.isprintable()
    assert "hush" not in checks["url"].found


async def test_a_name_with_a_forbidden_address_fails() -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        checks = await check(f"https://localhost:{port}/", allowed_networks=())
    assert checks["addresses"].result == "fail"
    assert "127.0.0.1 is not globally reachable (loopback)" in checks["addresses"].found
    assert "--allow-network" in str(checks["addresses"].fix)
    assert "connection" not in checks
    assert requests == []


async def test_a_private_address_that_is_allowed_warns() -> None:
    allowed = parse_networks(["127.0.0.0/8"])
    _, found = await check_addresses(target("https://localhost/", allowed_networks=allowed))
    assert found.result == "warn"
    assert "ThingSpace needs a public address" in str(found.fix)


async def test_one_forbidden_address_among_others_blocks_the_name(resolved: Callable[..., None]) -> None:
    resolved("93.184.215.14", "10.0.0.1")
    _, found = await check_addresses(target("https://mixed.example/", allowed_networks=()))
    assert found.result == "fail"
    assert "10.0.0.1" in found.found
    assert "among 2 addresses" in found.found


async def test_only_some_of_many_addresses_are_listed(resolved: Callable[..., None]) -> None:
    resolved(*(f"93.184.215.{last}" for last in range(100)))
    addresses, found = await check_addresses(target("https://many.example/", allowed_networks=()))
    assert (len(addresses), found.result) == (100, "pass")
    assert found.found.endswith(f"and {100 - MAX_ADDRESSES} more")


async def test_a_name_that_does_not_resolve_fails() -> None:
    checks = await check("https://nobody.invalid/")
    assert results(checks) == {"url": "pass", "port": "pass", "addresses": "fail"}
    assert "nobody.invalid does not resolve" in checks["addresses"].found


async def test_a_port_at_which_nothing_listens_fails() -> None:
    async with receiver(answering(OK)) as port:
        pass
    checks = await check(f"https://127.0.0.1:{port}/")
    assert checks["connection"].result == "fail"
    assert checks["connection"].found == f"127.0.0.1, port {port}: connection refused"
    assert "tls" not in checks


async def test_one_unreachable_address_of_two_warns() -> None:
    async with receiver(answering(OK)) as port:
        two = target(f"http://two.example:{port}/", connect_timeout=DEADLINE)
        reachable, found = await check_connection(two, ["127.0.0.2", "127.0.0.1"])
    assert reachable == "127.0.0.1"
    assert found.result == "warn"
    assert "1 of 2 addresses cannot be reached from here: 127.0.0.2: connection refused" in found.found


async def test_an_unreachable_receiver_fails() -> None:
    far = target("https://far.example/", connect_timeout=DEADLINE)
    _, found = await check_connection(far, ["255.255.255.255"])
    assert found.result == "fail"
    assert "network, routes and firewall" in str(found.fix)


async def test_a_silent_resolver_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(lookup: SystemLookup, host: str) -> object:
        return await asyncio.Event().wait()

    monkeypatch.setattr(SystemLookup, "__call__", silent)
    checks = await check("https://slow.example/", timeout=0.1)
    assert checks["addresses"].found == "slow.example: no answer within 0.1 s"


def test_ports_outside_thingspaces_list_warn_except_on_loopback() -> None:
    assert {80, 443, 9001, 9006, 50551, 50559, 28200, 28220} <= THINGSPACE_PORTS
    assert not {79, 9000, 9007, 50550, 50560, 28199, 28221} & THINGSPACE_PORTS
    for host, port, result in (
        ("example.invalid", 8443, "warn"),
        ("example.invalid", 50559, "pass"),
        ("[::1]", 1, "pass"),
    ):
        assert check_port(target(f"https://{host}:{port}/")).result == result


@pytest.fixture
async def resolved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every name resolve to given addresses."""

    def resolve_to(*addresses: str) -> None:
        async def look_up(lookup: SystemLookup, host: str) -> object:
            return addresses, 60.0

        monkeypatch.setattr(SystemLookup, "__call__", look_up)

    return resolve_to


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


def server_tls(issued: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    return context


def shown_as(folder: Path, key: bytes, *certificates: bytes) -> ssl.SSLContext:
    """A server that shows exactly these certificates."""
    (folder / "shown.pem").write_bytes(b"".join((key, *certificates)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "shown.pem")
    return context


LOCALHOST = x509.SubjectAlternativeName([x509.DNSName("localhost")])


def self_signed(folder: Path, names: x509.ExtensionType = LOCALHOST) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "my\nlaptop")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + DAY)
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return shown_as(
        folder, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), certificate.public_bytes(pem)
    )


@asynccontextmanager
async def over_tls(tls: ssl.SSLContext, behave: Behaviour | None = None) -> AsyncIterator[str]:
    async with receiver(behave or answering(OK), tls=tls) as port:
        yield f"https://localhost:{port}/"


async def test_a_correct_receiver_on_a_private_address_passes_with_warnings(
    authority: trustme.CA, ca_file: Path
) -> None:
    intermediate = authority.create_child_ca()
    async with over_tls(server_tls(intermediate.issue_cert("localhost", not_after=NOW + 90 * DAY))) as url:
        checks = await check(url, ca_file=ca_file)
    warned = {"addresses", "trust", "tampered", "unsigned"}
    assert results(checks) == {
        name: "warn" if name in warned else "pass"
        for name in (
            *("url", "port", "addresses", "connection", "tls", "trust", "validity", "host"),
            *("answer", "time", "duplicate", "tampered", "unsigned"),
        )
    }
    assert "2 certificates sent" in checks["trust"].found
    assert "public authority" in str(checks["trust"].fix)
    assert checks["tls"].found == "TLSv1.3"
    assert checks["validity"].found == f"90 days left, until {NOW + 90 * DAY:%Y-%m-%d}"


async def test_an_authority_of_the_system_passes(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    async with over_tls(server_tls(authority.issue_cert("localhost"))) as url:
        checks = await check(url)
    assert checks["trust"].result == "pass"


@pytest.mark.parametrize(
    ("from_day", "to_day", "result", "found"),
    [
        (-30, -2, "fail", f"expired on {NOW - 2 * DAY:%Y-%m-%d}"),
        (3, 30, "fail", f"not valid before {NOW + 3 * DAY:%Y-%m-%d} 00:00 UTC"),
        (-60, 20, "warn", f"20 days left, until {NOW + 20 * DAY:%Y-%m-%d}"),
        (-60, 21, "pass", "21 days left"),
    ],
)
async def test_the_dates_of_a_certificate(
    authority: trustme.CA, ca_file: Path, from_day: int, to_day: int, result: CheckResult, found: str
) -> None:
    issued = authority.issue_cert("localhost", not_before=NOW + from_day * DAY, not_after=NOW + to_day * DAY)
    async with over_tls(server_tls(issued)) as url:
        checks = await check(url, ca_file=ca_file)
    assert checks["validity"].result == result
    assert found in checks["validity"].found
    assert {checks["trust"].result, checks["host"].result} == {"warn", "pass"}
    assert ("answer" in checks) == (result != "fail")


async def test_the_certificate_that_expires_first_counts(ca_file: Path, authority: trustme.CA) -> None:
    day_after_all = datetime(3000, 1, 1, tzinfo=UTC)
    async with over_tls(server_tls(authority.issue_cert("localhost", not_after=day_after_all))) as url:
        checks = await check(url, ca_file=ca_file, now=day_after_all - DAY)
    assert checks["validity"].result == "warn"


async def test_a_self_signed_certificate_fails(tmp_path: Path) -> None:
    async with over_tls(self_signed(tmp_path)) as url:
        checks = await check(url)
    assert checks["trust"].result == "fail"
    assert checks["trust"].found == "the certificate is self-signed, by my laptop"
    assert checks["host"].result == "pass"
    assert "answer" not in checks


async def test_an_unknown_authority_fails(tmp_path: Path) -> None:
    private = trustme.CA()
    issued = private.issue_cert("localhost")
    (certificate,) = (pem.bytes() for pem in issued.cert_chain_pems)
    tls = shown_as(tmp_path, issued.private_key_pem.bytes(), certificate, private.cert_pem.bytes())
    async with over_tls(tls) as url:
        checks = await check(url)
    assert checks["trust"].result == "fail"
    assert "self-signed certificate in certificate chain; 2 certificates sent" in checks["trust"].found
    assert "--ca-file" in str(checks["trust"].fix)


async def test_a_chain_without_its_intermediate_fails(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    issued = authority.create_child_ca().issue_cert("localhost")
    leaf, *_ = (pem.bytes() for pem in issued.cert_chain_pems)
    async with over_tls(shown_as(tmp_path, issued.private_key_pem.bytes(), leaf)) as url:
        checks = await check(url, ca_file=ca_file)
    assert checks["trust"].result == "fail"
    assert "the chain is incomplete: 1 certificate sent" in checks["trust"].found
    assert "fullchain.pem" in str(checks["trust"].fix)


async def test_a_certificate_for_other_names_fails(authority: trustme.CA, ca_file: Path) -> None:
    names = ("other.example", "192.0.2.1", *(f"{letter}.example" for letter in "abcdef"))
    async with over_tls(server_tls(authority.issue_cert(*names))) as url:
        checks = await check(url, ca_file=ca_file)
    assert checks["host"].result == "fail"
    assert "for other.example, 192.0.2.1, a.example" in checks["host"].found
    assert checks["host"].found.endswith("…, not for localhost")


async def test_a_certificate_without_any_host_name(tmp_path: Path, authority: trustme.CA, ca_file: Path) -> None:
    # An authority's own, as who mixes up two files shows it.
    key = authority.private_key_pem.bytes()
    async with over_tls(shown_as(tmp_path, key, authority.cert_pem.bytes())) as url:
        checks = await check(url, ca_file=ca_file)
    assert "no host name at all" in checks["host"].found


async def test_an_unreadable_certificate_fails(tmp_path: Path) -> None:
    nonsense = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"nonsense")
    async with over_tls(self_signed(tmp_path, nonsense)) as url:
        checks = await check(url)
    assert checks["tls"].result == "fail"
    assert "the certificate cannot be read" in checks["tls"].found


async def test_all_faults_of_a_certificate_are_reported() -> None:
    issued = trustme.CA().issue_cert("other.example", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    async with over_tls(server_tls(issued)) as url:
        checks = await check(url)
    assert [checks[name].result for name in ("tls", "trust", "validity", "host")] == ["pass", "fail", "fail", "fail"]


async def test_plain_http_where_tls_is_expected_fails() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(status("400 Bad Request"))
        await writer.drain()

    async with receiver(plain) as port:
        checks = await check(f"https://127.0.0.1:{port}/")
    assert checks["tls"].result == "fail"
    assert "no TLS connection: " in checks["tls"].found
    assert "whether the port speaks TLS" in str(checks["tls"].fix)
    assert "answer" not in checks


async def test_a_port_that_is_silent_during_tls_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiver(silent) as port:
        checks = await check(f"https://127.0.0.1:{port}/", connect_timeout=1)
    assert checks["tls"].found == "no TLS connection within 1 s"


async def test_a_port_that_closes_during_tls_fails() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with receiver(hang_up) as port:
        checks = await check(f"https://127.0.0.1:{port}/")
    assert checks["tls"].result == "fail"


async def test_a_receiver_that_requires_a_client_certificate(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    tls = server_tls(authority.issue_cert("localhost"))
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    client = tmp_path / "client.pem"
    authority.issue_cert("fotahook.example").private_key_and_cert_chain_pem.write_to_path(str(client))
    async with over_tls(tls) as url:
        without = await check(url, ca_file=ca_file)
        shown = await check(url, ca_file=ca_file, client_cert=client)
    assert without["answer"].result == "fail"
    assert "--client-cert" in str(without["answer"].fix)
    assert shown["answer"].result == "pass"


# Responses to test messages


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nshort")
    await writer.drain()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def hang_up_on_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n" * 1000)
        await writer.drain()


@pytest.mark.parametrize(
    ("behave", "found", "fix"),
    [
        (
            answering(status("308 Moved", "Location: https://elsewhere.example/\x1b[31m")),
            "answers 308 (Location: https://elsewhere.example/ [31m)",
            "Redirects are not followed",
        ),
        (answering(status("500 Oops")), "answers 500", "failed on the test message"),
        (answering(status("503 Busy")), "answers 503", "overloaded"),
        (answering(status("404 Not Found")), "answers 404", "check the URL's path"),
        (answering(status("405 No")), "answers 405", "accepts no POST"),
        (answering(status("401 No")), "answers 401", "--secret"),
        (answering(status("403 No")), "answers 403", "certain addresses"),
        (answering(status("410 Gone")), "answers 410", "register another URL"),
        (answering(status("422 No")), "answers 422", "types that it does not know"),
        (answering(b"SSH-2.0-OpenSSH\r\n"), "response_invalid", "not HTTP"),
        (cut_off, "response_cut_off", "broke off"),
        (hang_up, "connection_lost", "closed the connection"),
        (hang_up_on_the_body, "connection_lost", "closed the connection"),
        (never, "timeout_response", "did not answer in time"),
        (endless_headers, "response_invalid", "not HTTP"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_receiver_that_does_not_accept_the_test_message_fails(behave: Behaviour, found: str, fix: str) -> None:
    async with receiver(behave) as port:
        checks = await check(f"http://127.0.0.1:{port}/", timeout=1 if behave is never else DEADLINE)
    assert list(checks)[-1] == "answer"
    assert checks["answer"].result == "fail"
    assert found in checks["answer"].found
    assert fix in str(checks["answer"].fix)


async def test_a_slow_response_warns() -> None:
    async with receiver(answering(OK)) as port:
        quick = await check(f"http://127.0.0.1:{port}/", tick=0.01)
        slow = await check(f"http://127.0.0.1:{port}/", tick=1.0)
    assert (quick["time"].result, slow["time"].result) == ("pass", "warn")
    assert "firstByte" in slow["time"].found


async def test_an_endless_response_is_cut_short() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with receiver(endless) as port:
        checks = await check(f"http://127.0.0.1:{port}/")
    assert checks["answer"].result == "pass"


async def test_the_test_messages_are_recognisable_and_correctly_signed() -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        await check(f"http://127.0.0.1:{port}/in?x=1", secret=SECRET)
    signed, again, tampered, unsigned = requests
    seeds = signing_seed(SECRET_KEY), account_signing_seed(SECRET_KEY, ACCOUNT)
    public, own = (signing.parse_public_key(signing.format_public_key(seed)) for seed in seeds)
    for request in requests:
        content = json.loads(request.body)
        assert (content["type"], content["accountName"]) == (TYPE, ACCOUNT)
        assert request.headers["user-agent"].startswith("fotahook-doctor/")
        assert request.line == "POST /in?x=1 HTTP/1.1"
    for public_keys, secrets in (([public], []), ([own], []), ([], [SECRET])):
        proof = partial(signing.verify, public_keys=public_keys, secrets=secrets, now=NOW.timestamp())
        proof(signed.headers, signed.body)
        proof(tampered.headers, signed.body)
    assert (again.body, again.headers["webhook-id"]) == (signed.body, signed.headers["webhook-id"])
    assert [one.headers["fotahook-attempt"] for one in (signed, again)] == ["1", "2"]
    assert tampered.body != signed.body
    assert tampered.headers["webhook-id"] != signed.headers["webhook-id"]
    assert not [name for name in unsigned.headers if name.startswith(("webhook", "fotahook"))]


async def test_a_listener_that_verifies_signatures_passes(tmp_path: Path) -> None:
    listener = Listener(f"sqlite:///{tmp_path}/inbox.db", secrets=[signing.format_secret(SECRET)], clock=NOW.timestamp)
    with listener_client(listener, serve=True) as client:
        checks = await check(client.url, secret=SECRET)
        stranger = await check(client.url)
    assert {checks[name].result for name in ("answer", "duplicate", "tampered", "unsigned")} == {"pass"}
    assert "answers 401" in checks["tampered"].found
    assert "ThingSpace signs nothing" in checks["unsigned"].found
    assert stranger["answer"].result == "fail"


async def test_a_receiver_that_refuses_a_duplicate_fails() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in (OK, status("409 Conflict"), status("500 Oops"), status("503 Busy")):
            await read_request(reader)
            writer.write(response)
            await writer.drain()

    async with receiver(once) as port:
        checks = await check(f"http://127.0.0.1:{port}/")
    assert checks["duplicate"].result == "fail"
    assert "comes again and again" in str(checks["duplicate"].fix)
    # What crashes on a bad message does not refuse it.
    for name, code in (("tampered", 500), ("unsigned", 503)):
        assert checks[name].result == "warn"
        assert checks[name].found == f"answers {code}, which neither accepts the message nor refuses it"


# The command


def test_checks_are_rows_when_piped_and_one_object_as_json(run: Run) -> None:
    with receiving() as peer:
        rows = run("doctor", peer.url, "--dev")
        found = json.loads(run("doctor", peer.url, "--dev", "--json").out)
    assert rows.code == 0
    assert rows.out.startswith("check\tresult\tfound\tfix\nurl\twarn\t")
    assert "\nanswer\tpass\tanswers 200 to a signed test message\t\n" in rows.out
    assert rows.err.startswith("fotahook: the test messages are signed by whpk_")
    assert (found["url"], found["result"]) == (peer.url, "warn")
    assert found["publicKey"].startswith("whpk_")
    assert {tuple(sorted(one)) for one in found["checks"]} == {("check", "fix", "found", "result")}


def test_a_failed_check_is_exit_code_1(run: Run) -> None:
    said = run("doctor", "https://127.0.0.1:1/", "--json")
    assert said.code == 1
    assert said.err == ""
    assert json.loads(said.out)["result"] == "fail"


def test_the_services_key_is_used_if_it_is_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOTAHOOK_SECRET_KEY", "a" * 43 + "=")
    keys = {json.loads(run("doctor", "x", "--json").out)["publicKey"] for _ in range(2)}
    monkeypatch.delenv("FOTAHOOK_SECRET_KEY")
    keys |= {json.loads(run("doctor", "x", "--json").out)["publicKey"] for _ in range(2)}
    assert len(keys) == 3


def test_ctrl_c_stops_it(tmp_path: Path) -> None:
    with receiving(hold=True) as peer:
        command = [*FOTAHOOK, "doctor", peer.url, "--dev"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE, text=True)
        while not peer.bodies and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[1:] == ["fotahook: interrupted"]


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        ((), 2, "URL"),
        (("https://x/", "--secret", "whsec_hunter2"), 2, "--secret"),
        (("https://x/", "--allow-network", "here"), 2, "--allow-network"),
        (("https://x/", "--account", "a/b"), 2, "--account"),
        (("https://x/", "--timeout", "0"), 2, "for --timeout"),
        (("https://x/", "--connect-timeout", "1e9"), 2, "--connect-timeout"),
        (("https://x/", "--timeout", "nan"), 2, "--timeout"),
        (("https://x/", "--ca-file", "absent.pem"), 1, "--ca-file absent.pem"),
        (("https://x/", "--client-cert", "absent.pem"), 1, "--client-cert absent.pem"),
        (("https://x/", "--nonsense"), 2, "--nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_invalid_options_are_usage_errors(run: Run, flags: tuple[str, ...], code: int, complaint: str) -> None:
    said = run("doctor", *flags)
    assert said.code == code
    assert is_one_line(said.err)
    assert complaint in said.err
    assert "hunter2" not in said.err
