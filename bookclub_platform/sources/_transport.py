"""The sockets below requests: connect only to a checked address, and read within limits of time and bytes.

session.mount("http://", BoundedAdapter(patience))
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from bookclub_platform.sources._politeness import Patience
from bookclub_platform.sources._safety import addresses


class TooLarge(Exception):
    """The response is larger than `Patience` allows."""


class BoundedAdapter(HTTPAdapter):
    """For both schemes. A proxy from the environment connects in our place and is trusted to keep us out of its
    network: then names are not resolved here, and only URLs are checked."""

    def __init__(self, patience: Patience) -> None:
        self._pools = _pools(patience)
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools


def _pools(limits: Patience) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes that close over `limits`, since urllib3 creates the connections and passes nothing of ours on."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, limits))

    class Plain(_CheckedConnection, HTTPConnection):
        response_class = Response

    class Secure(_CheckedConnection, HTTPSConnection):
        response_class = Response

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _CheckedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        """Connect to the first of the host's addresses that accepts; all were checked, and none is resolved again."""
        name = self.host
        try:
            found = addresses(name, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        try:
            for address in found[:-1]:
                try:
                    self.host = address
                    return super()._new_conn()
                except NewConnectionError:
                    continue
            self.host = found[-1]
            return super()._new_conn()
        finally:
            self.host = name  # the certificate check and the Host header need the name

    def getresponse(self) -> Any:
        # Acknowledge at once (Linux): otherwise a server that sends headers and body separately, as Python's own does,
        # waits 40 ms for the delayed ACK on each request (182 against 1,700 pages/s on loopback).
        if hasattr(socket, "TCP_QUICKACK") and self.sock is not None:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


class _BoundedReader(io.RawIOBase):
    """Bounds one response from its first byte, including status line and headers: a socket's own timeout restarts with
    each byte that trickles in."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, patience: Patience) -> None:
        self._raw, self._sock, self._patience = raw, sock, patience
        self._ends_at = time.monotonic() + patience.page_timeout_s
        self._bytes_left = patience.max_bytes + patience.max_header_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"not complete after {self._patience.page_timeout_s:g} s")
        self._sock.settimeout(min(self._patience.read_timeout_s, left_s))
        size = self._raw.readinto(buffer)
        self._bytes_left -= size or 0
        if self._bytes_left < 0:
            raise TooLarge(f"is larger than {self._patience.max_bytes} bytes on the wire")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
