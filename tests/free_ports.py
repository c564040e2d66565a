"""A port of this machine that nothing listens on: drawn numbers may be those of another test, or of a connection."""

from __future__ import annotations

import socket


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
