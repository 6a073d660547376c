# SPDX-License-Identifier: Apache-2.0
"""Whom a client trusts over TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from burnish.core.errors import Misuse


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """Returns a context that trusts the certificates of a PEM file; None: those of the system.

    Raises `Misuse` for a file that holds none.
    """
    try:
        return ssl.create_default_context(cafile=certificate)
    except OSError as error:  # ssl's own errors too
        raise Misuse(f"the certificate {certificate} cannot be read: {error}") from error
