"""A page in the browser, on this machine only: ``python -m pipnet.demo --web [PORT]``.

Two tabs: the browser's own camera, live, and photos. The server is aiohttp (extra ``web``) and the page plain
JavaScript, where Gradio was the other choice: a camera over a WebSocket of its own keeps one frame under way, so there
is no queue that could grow, the points are drawn in the page over the live picture, and it is one small dependency.

``POST /photo?name=NAME`` with the file as its body answers what ``--image NAME --json`` writes, and how many doubtful
faces were left out, so it can be used without the page:
``curl --data-binary @photo.jpg "http://127.0.0.1:7860/photo?name=photo.jpg"``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING

from pipnet.demo.options import DEFAULT_MIN_SCORE, DEFAULT_PORT
from pipnet.demo.web_guard import LOOPBACK

if TYPE_CHECKING:
    from aiohttp import web

    from pipnet.inference.landmarker import FaceLandmarker

# How long answers under way may take once the server stops.
_GRACE_S = 3.0


def serve(
    landmarker: FaceLandmarker,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    max_faces: int | None = None,
    min_score: float = DEFAULT_MIN_SCORE,
    open_browser: bool = False,
) -> int:
    """Serve the page until Ctrl-C (SIGINT) or SIGTERM.

    Args:
        landmarker: One for all; its detector is loaded before the page can be reached.
        host: A loopback address or name; the page is for this machine only.
        port: To listen on; 0 takes any free one.
        max_faces: Only the so many surest faces of each picture; None is all.
        min_score: Of faces in photos; those below are left out, and counted.
        open_browser: Also open the page in the default browser.

    Returns:
        Exit status: 0 when it was ended, 2 when it could not start (aiohttp is missing, the port is taken); one
        sentence on stderr says why.

    Raises:
        ValueError: ``host`` is no loopback address.
    """
    if host not in LOOPBACK:
        raise ValueError(f"the page is for this machine only: host must be one of {', '.join(LOOPBACK)}, got {host!r}")
    problem = missing_package()
    if problem:
        return _complain(problem)
    import cv2

    from pipnet.demo.web_app import make_app

    # OpenCV's threads would fight those of the network for the cores.
    cv2.setNumThreads(1)
    try:
        listening = _listen(host, port)
    except (OSError, OverflowError) as error:
        return _complain(_why_not(port, error))
    with listening:
        app = make_app(landmarker, max_faces=max_faces, min_score=min_score)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        with contextlib.suppress(KeyboardInterrupt):  # where signals can't be handled in the loop (Windows)
            asyncio.run(_run(app, listening, url, open_browser))
    print("stopped", flush=True)
    return 0


def missing_package() -> str | None:
    """What to install before :func:`serve` can work, as a sentence, or None."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        return 'the page needs aiohttp: pip install "pipnet[web]" or pip install aiohttp'
    return None


def _complain(sentence: str) -> int:
    print(f"pipnet.demo: {sentence}", file=sys.stderr)
    return 2


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; made before the event loop starts, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _why_not(port: int, error: Exception) -> str:
    import errno

    advice = "give another port (--web 7861) or let the system choose one (--web 0)"
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
        reason = "is taken by another program" if error.errno == errno.EADDRINUSE else "needs the rights of root"
        return f"port {port} {reason}; {advice}"
    return f"port {port} can't be used ({error}); {advice}"


async def _run(app: web.Application, listening: socket.socket, url: str, open_browser: bool) -> None:
    from aiohttp import web

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # Not on Windows, where Ctrl-C cancels this task; and only the main thread may.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(name, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        print(f"pipnet.demo: open {url} in a browser on this machine; Ctrl-C ends it", flush=True)
        if open_browser:  # on a thread: some browsers return only when they are closed
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        await stop.wait()
    finally:
        await runner.cleanup()
