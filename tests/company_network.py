"""The network of a company, on loopback sockets: certificates of its own, servers with TLS, a proxy, odd doors."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LINE = b"\r\n"
Handler = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder, made with the program ``openssl``."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    @classmethod
    def create(cls, folder: Path) -> Authority:
        folder.mkdir(parents=True)
        made = cls(folder)
        made._run(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 "
            "-subj /CN=Company -addext keyUsage=critical,keyCertSign,cRLSign"
        )
        return made

    def issue(self, name: str, hosts: str = "DNS:localhost,IP:127.0.0.1", days: int = 30) -> Path:
        """Return the file of a certificate with its key."""
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={hosts}\nauthorityKeyIdentifier=keyid\n")
        self._run(
            f"req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr "
            f"-subj /CN={name}"
        )
        self._run(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext "
            f"-out {name}.crt"
        )
        both = self.folder / f"{name}.pem"
        both.write_text((self.folder / f"{name}.crt").read_text() + (self.folder / f"{name}.key").read_text())
        return both

    def _run(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True)


@dataclass
class Server:
    """A server on a loopback socket that gives each connection to a function, in a thread."""

    port: int
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    """The first lines and headers of requests that a proxy or a redirecting server was sent."""


@contextlib.contextmanager
def serve(handle: Callable[[socket.socket, Server], None]) -> Iterator[Server]:
    """Serve until the end of the block."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(listening.getsockname()[1])
    threads = []

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            handle(connection, server)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            server.connections += 1
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)


def tls(certificate: Path, port: int, wanted: Path | None = None) -> contextlib.AbstractContextManager[Server]:
    """Serve with TLS what another port serves without; ``wanted`` signs the certificates that clients must have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if wanted is not None:
        context.load_verify_locations(wanted)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def handle(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as plain:
            _join(plain, port)

    return serve(handle)


def proxy(port: int, refusal: str = "", sign_in: str = "") -> contextlib.AbstractContextManager[Server]:
    """Lead every CONNECT to one port, or answer with a status line.

    Args:
        sign_in: the header that a client must send.
    """

    def handle(connection: socket.socket, server: Server) -> None:
        head = _head(connection)
        server.requests.append(head)
        answer = refusal or ("" if sign_in.encode() in head else "407 Proxy Authentication Required")
        if answer:
            connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        _join(connection, port)

    return serve(handle)


def redirect(status: int, target: str) -> contextlib.AbstractContextManager[Server]:
    """Redirect every request. ``target`` without a host is another path of this server, which redirects no further."""

    def handle(connection: socket.socket, server: Server) -> None:
        head = _head(connection)
        server.requests.append(head)
        connection.sendall(
            f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    return serve(handle)


def closing(connection: socket.socket, server: Server) -> None:
    """Close every connection at its first bytes."""
    connection.recv(1)


def speaking_http(connection: socket.socket, server: Server) -> None:
    """Answer TLS with plain HTTP."""
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def refusing_handshakes(connection: socket.socket, server: Server) -> None:
    """Answer TLS with the alert handshake_failure."""
    connection.recv(1000)
    connection.sendall(bytes([21, 3, 3, 0, 2, 2, 40]))


def read_request(connection: socket.socket) -> bytes:
    """Return a request with its body, whose length its headers tell."""
    request = b""
    while (part := connection.recv(65_536)) and (request := request + part):
        head, end, body = request.partition(LINE + LINE)
        length = next((line[15:] for line in head.lower().split(LINE) if line.startswith(b"content-length:")), b"0")
        if end and len(body) >= int(length):
            break
    return request


def _head(connection: socket.socket) -> bytes:
    head = b""
    while LINE + LINE not in head and (part := connection.recv(65_536)):
        head += part
    return head.partition(LINE + LINE)[0]


def _join(connection: socket.socket, port: int) -> None:
    """Pass bytes in both directions until a side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as other:
        back = threading.Thread(target=_pass, args=(other, connection), daemon=True)
        back.start()
        _pass(connection, other)
        back.join(10)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
