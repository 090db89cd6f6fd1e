"""Names that change their answer, answers of every kind, hosts in every spelling: no forbidden connect ever happens.

Two edges of the event loop are ours here: the look-up of names, since there is no name server, and the connect, so that
every attempt at one is seen and public addresses lead to a receiver of this machine. All between them is the sender's.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import chain, repeat
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fotahook.contract.addresses import parse_networks
from fotahook.delivery import Outcome
from fotahook.delivery.sender import Sender

from .conftest import a_delivery, a_lease
from .test_sender import OK, Request, answering, read_request, receiver, sender, status

Address = IPv4Address | IPv6Address
Answer = tuple[str, ...]

PUBLIC: Final = ("8.8.8.8", "93.184.215.14", "2606:4700::1111")
PORT: Final = 50559
HOST: Final = "receiver.example"

SPECIAL: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    *(IPv4Network(f"{block}.0.0.0/8") for block in (0, 10, 127, 224, 239, 240, 255)),
    *map(IPv4Network, ("100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")),
    *map(IPv4Network, ("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24", "203.0.113.0/24")),
    *map(IPv6Network, ("::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "fec0::/10")),
    *map(IPv6Network, ("2001::/32", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7")),
    *map(IPv6Network, ("fe80::/10", "ff00::/8")),
)
"""IANA's special-purpose registries, with multicast and what is reserved."""


class Edges:
    """What names resolve to, and which connects were tried. A connect to a public address reaches `port` instead."""

    def __init__(self, port: int) -> None:
        self.answers: dict[str, Iterator[Answer]] = {}
        self.asked: list[str] = []
        self.connects: list[str] = []
        self._port = port
        self._loop = asyncio.get_running_loop()

    def resolve(self, *answers: Answer, host: str = HOST) -> None:
        """Answer the first look-up of a name with the first of these, and so on; the last one stays."""
        self.answers[host] = chain(answers, repeat(answers[-1]))

    @contextmanager
    def taken(self) -> Iterator["Edges"]:
        loop: Any = self._loop
        self._really_connect = loop.sock_connect
        loop.sock_connect = self._connect
        try:
            yield self
        finally:
            del loop.sock_connect

    async def look_up(self, host: str) -> tuple[Sequence[str], float]:
        self.asked.append(host)
        if host not in self.answers:
            # What the C library makes of other spellings of numbers; names it would have to ask for do not exist.
            found = await self._loop.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
            return [str(info[4][0]) for info in found], 60.0
        return next(self.answers[host]), 60.0

    async def _connect(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        self.connects.append(address[0])
        if address[0] not in PUBLIC or sock.family != socket.AF_INET:
            raise ConnectionRefusedError("nothing is there")
        await self._really_connect(sock, ("127.0.0.1", self._port))


@asynccontextmanager
async def world(response: bytes = OK, **settings: object) -> AsyncIterator[tuple[Edges, Sender, list[Request]]]:
    """The edges, a sender that may deliver to public addresses only, and what the receiver got."""
    requests: list[Request] = []
    async with receiver(answering(response, requests)) as port:
        edges = Edges(port)
        settings = {"allowed_networks": (), "lookup": edges.look_up} | settings
        async with sender(**settings) as made:
            with edges.taken():
                yield edges, made, requests


async def deliver(made: Sender, host: str = HOST, port: int = PORT) -> Outcome:
    return await made.deliver(a_lease(url=f"http://{host}:{port}/in"), a_delivery())


def is_public(text: str) -> bool:
    """Python's own judgement of an address and of any that it hides, without a line of ours."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        number = int(address)
        low = IPv4Address(number & 0xFFFF_FFFF)
        hidden = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in IPv6Network("64:ff9b::/96") or (number >> 32) & 0xFFFF_FFFF in (0x5EFE, 0x0200_5EFE):
            hidden.append(low)
        if not all(is_public(str(one)) for one in hidden if one is not None):
            return False
        if address.ipv4_mapped is not None or address in IPv6Network("64:ff9b::/96"):
            return True
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


# Names


async def test_a_name_that_is_public_first_and_loopback_next_is_not_followed_there() -> None:
    async with world() as (edges, made, requests):
        edges.resolve(("8.8.8.8",), ("127.0.0.1",))
        first = await deliver(made)
    async with world() as (again, made, _):
        again.answers = edges.answers
        second = await deliver(made)
    assert (first.code, second.code) == ("delivered", "blocked_address")
    assert len(requests) == 1
    assert (edges.connects, again.connects) == (["8.8.8.8"], [])


async def test_there_is_no_second_lookup_before_connecting() -> None:
    async with world() as (edges, made, _):
        edges.resolve(("8.8.8.8", "93.184.215.14"), ("127.0.0.1",))
        assert (await deliver(made)).code == "delivered"
        assert edges.asked == [HOST]
        assert set(edges.connects) <= {"8.8.8.8", "93.184.215.14"}


async def test_a_new_connection_after_a_dead_reused_one_is_vetted_again() -> None:
    connections = 0

    async def hang_up_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for response in (OK, b""):
            await read_request(reader)
            writer.write(response)

    async with receiver(hang_up_on_the_second) as port:
        edges = Edges(port)
        async with sender(allowed_networks=(), lookup=edges.look_up) as made:
            with edges.taken():
                edges.resolve(("8.8.8.8",), ("169.254.169.254",))
                first = await deliver(made)
                # An answer is remembered for a minute, vetted as it is: here it has passed.
                made._resolver._monotonic = lambda: float("inf")
                second = await deliver(made)
    assert (first.code, second.code) == ("delivered", "blocked_address")
    assert edges.asked == [HOST, HOST]
    assert (edges.connects, connections) == (["8.8.8.8"], 1)


@pytest.mark.parametrize(
    "forbidden", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1"]
)
@pytest.mark.parametrize("place", range(3))
async def test_a_lookup_with_one_forbidden_address_is_refused_wherever_it_stands(forbidden: str, place: int) -> None:
    answer = list(PUBLIC[:2])
    answer.insert(place, forbidden)
    async with world() as (edges, made, _):
        edges.resolve(tuple(answer))
        outcome = await deliver(made)
    assert (outcome.code, edges.connects) == ("blocked_address", [])
    assert "--allow-network" in outcome.excerpt


async def test_a_redirect_to_this_machine_is_not_followed() -> None:
    moved = status("302 Found", f"Location: http://127.0.0.1:{PORT}/")
    async with world(moved) as (edges, made, _):
        edges.resolve(("8.8.8.8",))
        outcome = await deliver(made)
    assert (outcome.code, edges.connects) == ("redirect", ["8.8.8.8"])


async def test_a_lookup_result_that_is_no_address_is_an_outcome_without_a_connection() -> None:
    async with world() as (edges, made, _):
        edges.resolve(("not an address",))
        outcome = await deliver(made)
    assert outcome.code in ("dns_error", "url_invalid")
    assert edges.connects == []


async def test_an_allowed_network_allows_only_itself() -> None:
    async with world(allowed_networks=parse_networks(["10.1.0.0/16"])) as (edges, made, _):
        for answer, code in (("10.1.2.3", "connection_refused"), ("10.2.0.1", "blocked_address")):
            edges.resolve((answer,), host=f"{answer}.example")
            assert (await deliver(made, f"{answer}.example")).code == code
    assert edges.connects == ["10.1.2.3"]


# Every address


addresses = st.one_of(
    st.sampled_from(PUBLIC).map(ip_address),
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    st.sampled_from(SPECIAL).flatmap(lambda network: st.ip_addresses(network=network)),
    st.sampled_from(SPECIAL).map(lambda network: network[-1]),
)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """An address, or an IPv4 address in one of the notations that IPv6 has for it."""
    address = draw(addresses)
    if isinstance(address, IPv6Address):
        return str(address) + draw(st.sampled_from(["", "%lo", "%1"]))
    number = int(address)
    forms = (0, 0xFFFF << 32, 0x64_FF9B << 96, 0x2606_4700 << 96 | 0x5EFE << 32, 0x2606_4700 << 96 | 0x0200_5EFE << 32)
    as_v6 = [str(IPv6Address(form | number)) for form in forms] + [str(IPv6Address(0x2002 << 112 | number << 80 | 1))]
    return draw(st.sampled_from([str(address), *as_v6]))


@given(st.lists(st.lists(spelled(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4))
@example([("8.8.8.8",), ("127.0.0.1",)])
@example([("::ffff:127.0.0.1",), ("64:ff9b::7f00:1",), ("2002:7f00:1::1",), ("::127.0.0.1",)])
async def test_whatever_a_name_answers_only_addresses_that_python_calls_public_are_connected_to(
    answers: list[Answer],
) -> None:
    async with world() as (edges, made, _):
        for number, answer in enumerate(answers):
            host = f"{number}.{HOST}"
            edges.resolve(answer, ("127.0.0.1",), host=host)
            before = len(edges.connects)
            outcome = await deliver(made, host)
            connects = edges.connects[before:]
            assert set(connects) <= set(answer)
            assert all(map(is_public, answer)) or not connects, (answer, connects)
            assert connects or outcome.code in ("blocked_address", "connection_failed", "connection_lost")


@pytest.mark.parametrize("network", SPECIAL, ids=str)
async def test_no_special_range_is_connected_to(network: IPv4Network | IPv6Network) -> None:
    async with world() as (edges, made, _):
        for address in (network[0], network[-1], network[network.num_addresses // 2]):
            host = f"{int(address)}.example"
            edges.resolve((str(address),), host=host)
            assert (await deliver(made, host)).code == "blocked_address"
            literal = f"[{address}]" if address.version == 6 else str(address)
            assert (await deliver(made, literal)).code == "blocked_address"
    assert edges.connects == []


# Every spelling of this machine, with a receiver on it that must never hear anything


LOOPBACK: Final = (
    *("127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "0", "0.0.0.0", "localhost", "LOCALHOST"),
    *("localhost.", "2130706433", "0x7f000001", "0X7F.0.0.1", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.01"),
    # Full width, circled, ideographic: IDNA makes plain digits and dots of them.
    *("①②⑦.⓪.⓪.①", "127。0。0。1", "１２７．０．０．１", "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "foo@127.0.0.1"),  # noqa: RUF001
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]"),
    *("[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::1%lo]", "[::1%25lo]", "[::127.0.0.1]", "[fe80::1%25lo]"),
)


@pytest.mark.parametrize("host", LOOPBACK)
async def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    requests: list[Request] = []
    async with receiver(answering(OK, requests)) as port:
        edges = Edges(port)
        async with sender(allowed_networks=(), lookup=edges.look_up) as made:
            with edges.taken():
                edges.resolve(("127.0.0.1",), host="localhost")
                edges.resolve(("127.0.0.1",), host="localhost.")
                outcome = await deliver(made, host, port)
    assert outcome.code in ("blocked_address", "dns_error", "url_invalid")
    assert (edges.connects, requests) == ([], [])
