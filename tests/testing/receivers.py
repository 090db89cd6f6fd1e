"""A receiver that accepts every request."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fotahook.testing import Certificates


class Receiver:
    """A receiver and the requests so far. With `hold` it responds after `release` only."""

    def __init__(self, url: str, released: threading.Event) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.release = released.set


@contextlib.contextmanager
def receiving(*, hold: bool = False, certificates: Certificates | None = None) -> Iterator[Receiver]:
    """Run a receiver in a thread, with certificates over TLS."""
    released = threading.Event()
    if not hold:
        released.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            released.wait()
            # The client may have timed out and closed the connection.
            with contextlib.suppress(ConnectionError):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.cert_file, certificates.key_file)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificates is None else "https"
        receiver = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/", released)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            released.set()
            server.shutdown()
            thread.join()
