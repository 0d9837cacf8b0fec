"""The certificate authorities that HTTP clients of our making trust.

Reading the file of authorities takes longer than most requests to a server nearby, and httpx reads it for each client.
All our clients share one context per library instead: that library's own default, which follows ``SSL_CERT_FILE`` and
``SSL_CERT_DIR`` as the SDKs' clients do.
"""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import Any


def ssl_context(library: Any) -> ssl.SSLContext:
    """Return the default context of ``httpx`` or ``httpx2``, made when it is first needed."""
    return _create(library, os.getpid(), os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _create(library: Any, *_: int | str | None) -> ssl.SSLContext:
    """Create a context; the other arguments tell processes and settings apart."""
    context: ssl.SSLContext = library.create_ssl_context()
    return context
