"""Who may talk to the page's server: programs on this machine, and no page but its own."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# The page loads its own files only, no other page may frame it, and only it may use the camera.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def refusal(host: str | None, origin: str | None) -> str | None:
    """Why a request is turned away.

    Listening on the loopback address keeps other machines out, but not pages in this machine's browser. A foreign page
    can give its own name this machine's address (DNS rebinding): then ``Host`` is that name. And it can open a
    WebSocket or send a photo here under its own name: then ``Origin`` is another one than ``Host``. Programs that are
    no browser send no ``Origin``.

    Args:
        host: The request's ``Host`` header; any port will do, for tunnels.
        origin: Its ``Origin`` header.

    Returns:
        A sentence, or None where the request is fine.

    Example:
        >>> refusal("localhost:7860", "http://localhost:7860") is None
        True
        >>> refusal("rebound.example:7860", None)
        "this page answers on this machine only: open it as localhost, not as 'rebound.example:7860'"
        >>> refusal("127.0.0.1:7860", "https://foreign.example")
        "a page of 'https://foreign.example' asked; only this server's own page may"
    """
    if host is None or _name(host) not in LOOPBACK:
        return f"this page answers on this machine only: open it as localhost, not as {host!r}"
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return f"a page of {origin!r} asked; only this server's own page may"
    return None


def _name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.netloc == host and parts.username is None else None
    except ValueError:  # brackets that don't close
        return None
