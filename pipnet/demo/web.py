"""A page in the browser, on this machine only: ``python -m pipnet.demo --web [PORT]``.

Two tabs: the browser's own camera, live, and photos. The server is aiohttp (extra ``web``), the page plain JavaScript.
The camera's WebSocket has one frame under way, so no queue can grow; the page draws the points over its live picture.

``POST /photo?name=NAME`` with the file as its body answers what ``--image NAME --json`` writes, and how many doubtful
faces were skipped, so it can be used without the page:
``curl --data-binary @photo.jpg "http://127.0.0.1:7860/photo?name=photo.jpg"``.
Only programs on this machine and the server's own page may talk to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import signal
import socket
import struct
import threading
import webbrowser
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import cv2
import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from pipnet.console import complain, version
from pipnet.data.images import MAX_PIXELS, BadSampleError, claimed_size, decode_image
from pipnet.demo.command import DEFAULT_MIN_SCORE, DEFAULT_PORT
from pipnet.demo.photos import surest
from pipnet.demo.stopwatch import Stopwatch
from pipnet.inference.drawing import part_colours, point_colours
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.tracking import FaceTracker
from pipnet.layouts import PointLayout

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
    """Why a request is turned away, by its headers ``Host`` and ``Origin``: a sentence, or None where it is fine.

    Listening on the loopback address keeps other machines out, but not pages in this machine's browser. A foreign page
    can give its own name this machine's address (DNS rebinding): then ``Host`` is that name. And it can open a
    WebSocket or send a photo here under its own name: then ``Origin`` is another one than ``Host``. Programs that are
    no browser send no ``Origin``. Any port will do, for tunnels.
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


def decode_page_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """What :func:`pipnet.data.images.decode_image` makes of a file, with errors that help who sees a page.

    Raises:
        BadSampleError: Empty, no image, cut off, or above ``max_pixels``, which is checked before anything is decoded.
    """
    if not data:
        raise BadSampleError(f"{name}: the file is empty")
    width, height = claimed_size(data) or (0, 0)
    if width * height > max_pixels:
        most = f"{max_pixels / 1e6:.0f} megapixels"
        raise BadSampleError(f"{name}: {width} x {height} pixels are more than the {most} that work; reduce it")
    try:
        return decode_image(data, name)
    except BadSampleError as error:  # whose advice is for files of a dataset
        problem = str(error).rpartition("; ")[0]
        raise BadSampleError(f"{problem}; save it again, JPEG, PNG, WebP, BMP and TIFF work") from None


LARGEST_PHOTO_BYTES = 64 * 2**20
LARGEST_FRAME_BYTES = 4 * 2**20  # a JPEG of 640 x 480 has a fiftieth of it
MOST_FRAME_PIXELS = 2**24
MOST_PAGES = 8  # with a camera at once: each takes its share of the same cores

# Two, so that the page of one can decode its frame while the network runs for another; frames queue in the order in
# which they came, and a page has only one under way, so pages take turns. Photos never take both.
_WORKERS = 2
PAGE = Path(__file__).resolve().parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LONGEST_REASON = 123  # bytes, by the WebSocket standard
_MISTAKE = "something went wrong in the server; its terminal says what"
_TIME = struct.Struct("<d")

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def make_app(
    landmarker: FaceLandmarker, *, max_faces: int | None = None, min_score: float = DEFAULT_MIN_SCORE
) -> web.Application:
    """The application that :func:`serve` runs; its arguments are those of :func:`serve`.

    ======================== =========================================================================================
    ``GET /``                the page, and its files beside it
    ``GET /about``           JSON: layout, groups, colours, limits
    ``POST /photo?name=``    the file as body; JSON ``{"image", "width", "height", "layout", "faces", "skipped",
                             "ms"}``
    ``GET /live``            WebSocket. A message is a frame: the time in seconds (float64, little-endian), then JPEG,
                             PNG or WebP. Each gets one answer, in order: JSON ``{"frame", "time", "width", "height",
                             "layout", "faces", "ms"}``; faces have ids.
    ======================== =========================================================================================

    Points are pixels of the picture sent, upright. ``skipped`` counts faces below ``min_score``, ``ms`` is how long
    each part took. What can't be done is answered by ``{"error": SENTENCE}``.
    """
    server = _Server(landmarker, max_faces, min_score)
    app = web.Application(middlewares=[_guard], client_max_size=LARGEST_PHOTO_BYTES)
    app.router.add_get("/about", server.about)
    app.router.add_post("/photo", server.photo)
    app.router.add_get("/live", server.live)
    app.router.add_get("/", server.page_file)
    app.router.add_get("/{file}", server.page_file)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(server.say_goodbye)
    app.on_cleanup.append(server.close)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
    """Turn foreign requests away, and give every error as JSON with a sentence."""
    reason = refusal(request.headers.get("Host"), request.headers.get("Origin"))
    if reason:
        return _error(reason, status=403)
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _error(f"the photo has more than {LARGEST_PHOTO_BYTES >> 20} MB; save it smaller", status=413)
    except web.HTTPException as error:
        return _error(f"{request.method} {request.path}: {error.reason.lower()}", status=error.status)
    except Exception:
        _LOG.exception("%s %s", request.method, request.path)
        return _error(_MISTAKE, status=500)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


class _Server:
    """What the handlers share."""

    def __init__(self, landmarker: FaceLandmarker, max_faces: int | None, min_score: float) -> None:
        landmarker.detector(np.zeros((64, 64, 3), dtype=np.uint8))  # loaded once, for the copies that are measured
        self._landmarker = landmarker
        self._max_faces = max_faces
        self._min_score = min_score
        self._threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="pipnet-web")
        self._one_photo = asyncio.Semaphore(_WORKERS - 1)
        self._sockets: set[web.WebSocketResponse] = set()
        self._files = {
            path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in PAGE.iterdir() if path.suffix in _TYPES
        }
        self._about = _about(landmarker.layout)

    async def page_file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("file", "index.html")
        if name not in self._files:
            raise web.HTTPNotFound
        body, content_type = self._files[name]
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    async def about(self, _request: web.Request) -> web.Response:
        return web.json_response(self._about)

    async def photo(self, request: web.Request) -> web.Response:
        if (size := request.content_length or 0) > LARGEST_PHOTO_BYTES:
            raise web.HTTPRequestEntityTooLarge(LARGEST_PHOTO_BYTES, size)
        name = request.query.get("name", "")[:200] or "photo"
        data = await request.read()
        async with self._one_photo:
            try:
                text = await self._in_thread(self._find, data, name)
            except ValueError as error:
                return _error(str(error), status=422)
        return web.Response(text=text, content_type="application/json")

    async def live(self, request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(max_msg_size=LARGEST_FRAME_BYTES, heartbeat=30, compress=False, timeout=2)
        await client.prepare(request)
        if len(self._sockets) >= MOST_PAGES:
            message = f"{MOST_PAGES} pages with a camera are open already; close one"
            await client.close(code=WSCloseCode.TRY_AGAIN_LATER, message=message.encode())
            return client
        self._sockets.add(client)
        try:
            follower = _Follower(self._landmarker, self._max_faces)
            async for message in client:
                if message.type is WSMsgType.BINARY:
                    answer = await self._in_thread(follower.answer, message.data)
                elif message.type is WSMsgType.TEXT:
                    answer = json.dumps({"error": "a frame is a binary message: 8 bytes of time, then the picture"})
                else:
                    break
                await client.send_str(answer)
        except ValueError as error:  # a network whose layout can't be followed
            await client.close(code=WSCloseCode.UNSUPPORTED_DATA, message=str(error).encode()[:_LONGEST_REASON])
        except ConnectionResetError:
            _LOG.debug("a page left in the middle of a frame")
        except Exception:  # not for the guard: an answer of HTTP would be noise in the open socket
            _LOG.exception("%s %s", request.method, request.path)
            await client.close(code=WSCloseCode.INTERNAL_ERROR, message=_MISTAKE.encode())
        finally:
            self._sockets.discard(client)
        return client

    async def say_goodbye(self, _app: web.Application) -> None:
        """Close what is open, so that no page waits for an answer."""
        closing = [client.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops") for client in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)

    async def close(self, _app: web.Application) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _find(self, data: bytes, name: str) -> str:
        """The answer to a photo, as JSON."""
        watch = Stopwatch()
        landmarker = watch.watch(self._landmarker)
        with watch.part("read"):
            image = decode_page_image(data, name)
        found = landmarker(image, boxes=landmarker.detector(image))
        faces, skipped = surest(found, self._min_score, self._max_faces)
        height, width = image.shape[:2]
        answer = {"image": name, "width": width, "height": height, **faces.to_dict()}
        return json.dumps(answer | {"skipped": skipped, "ms": _milliseconds(watch)})


class _Follower:
    """The faces of one page's camera, from frame to frame. Called by one thread at a time."""

    def __init__(self, landmarker: FaceLandmarker, max_faces: int | None) -> None:
        self._watch = Stopwatch()
        self._tracker = FaceTracker(self._watch.watch(landmarker), max_faces=max_faces)
        self._frame = 0

    def answer(self, message: bytes) -> str:
        """The answer to a frame, as JSON; a frame that can't be used leaves no trace in the tracking."""
        try:
            return json.dumps(self._follow(message))
        except ValueError as error:
            return json.dumps({"error": str(error)})

    def _follow(self, message: bytes) -> dict[str, Any]:
        if len(message) <= _TIME.size:
            raise ValueError(f"a frame is 8 bytes of time, then the picture; this one has {len(message)} bytes")
        (now,) = _TIME.unpack_from(message)
        if not math.isfinite(now):
            raise ValueError(f"the time of a frame must be a number of seconds, got {now}")
        with self._watch.part("read"):
            image = decode_page_image(message[_TIME.size :], "the frame", max_pixels=MOST_FRAME_PIXELS)
        faces = self._watch.track(self._tracker, image, now)
        height, width = image.shape[:2]
        answer = {"frame": self._frame, "time": now, "width": width, "height": height}
        self._frame += 1
        return answer | faces.to_dict() | {"ms": _milliseconds(self._watch)}


def _milliseconds(watch: Stopwatch) -> dict[str, float]:
    """What the parts of the frame that was under way took; the next one begins."""
    return {part: round(1000 * seconds, 2) for part, seconds in watch.frame_done().items()}


def _about(layout: PointLayout) -> dict[str, Any]:
    """What the page needs to know to draw and to send."""
    colours = {part: _css(colour) for part, colour in part_colours(layout).items()}
    return {
        "version": version(),
        "layout": layout.name,
        "num_points": layout.num_points,
        "groups": [
            {"name": g.name, "indices": list(g.indices), "closed": g.closed, "colour": colours[g.part]}
            for g in layout.groups
        ],
        "point_colours": [_css(colour) for colour in point_colours(layout)],
        "largest_photo_bytes": LARGEST_PHOTO_BYTES,
    }


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _error(sentence: str, *, status: int) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


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
        landmarker: One for all pages; its detector is loaded before the page can be reached.
        host: A loopback address or name; another raises a ValueError.
        port: To listen on; 0 takes any free one.
        max_faces: Only the so many surest faces of each picture; None is all.
        min_score: Of faces in photos; those below are skipped, and counted. On the camera the tracking decides.
        open_browser: Also open the page in the default browser.

    Returns:
        Exit status: 0 when it was ended, 2 when it could not start (the port is taken).
    """
    if host not in LOOPBACK:
        raise ValueError(f"the page is for this machine only: host must be one of {', '.join(LOOPBACK)}, got {host!r}")
    # OpenCV's threads would fight those of the network for the cores.
    cv2.setNumThreads(1)
    try:  # before the event loop starts, so that a taken port is known at once
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        complain("demo", _why_not(port, error))
        return 2
    with listening:
        app = make_app(landmarker, max_faces=max_faces, min_score=min_score)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        with contextlib.suppress(KeyboardInterrupt):  # where signals can't be handled in the loop (Windows)
            asyncio.run(_run(app, listening, url, open_browser))
    print("stopped", flush=True)
    return 0


def _why_not(port: int, error: Exception) -> str:
    advice = "give another port (--web 7861) or let the system choose one (--web 0)"
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
        reason = "is taken by another program" if error.errno == errno.EADDRINUSE else "needs the rights of root"
        return f"port {port} {reason}; {advice}"
    return f"port {port} can't be used ({error}); {advice}"


async def _run(app: web.Application, listening: socket.socket, url: str, open_browser: bool) -> None:
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
