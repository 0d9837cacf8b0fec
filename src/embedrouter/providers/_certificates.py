"""The certificate authorities that HTTP clients of our making trust.

Reading the file of authorities takes longer than most requests to a server nearby, and httpx reads it for each client.
All our clients share one context per library instead: that library's own default, which follows ``SSL_CERT_FILE`` and
``SSL_CERT_DIR`` as the SDKs' clients do.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Protocol, cast

from .._process import PerProcess


class _Library(Protocol):
    def create_ssl_context(self) -> ssl.SSLContext: ...


def ssl_context(library: ModuleType) -> ssl.SSLContext:
    """Return the default context of ``httpx`` or ``httpx2``, made when it is first needed."""
    return _contexts.get()(library, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


def _create(library: ModuleType, file: str | None, folder: str | None) -> ssl.SSLContext:
    return cast(_Library, library).create_ssl_context()


_contexts: PerProcess[Callable[[ModuleType, str | None, str | None], ssl.SSLContext]] = PerProcess(
    lambda: cache(_create)
)
