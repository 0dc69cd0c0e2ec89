"""The server behind the page: photos, live frames, and who is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker

aiohttp = pytest.importorskip("aiohttp", reason="the page needs aiohttp (extra web)")
skimage_data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")

from aiohttp.test_utils import TestClient, TestServer  # noqa: E402

from pipnet.demo import web as web_module  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def portrait():
    return skimage_data.astronaut()


def served(shipped, act, **options):
    """What ``act(client)`` returns, which asks a server."""

    async def run():
        async with TestClient(TestServer(web_module.make_app(shipped, **options))) as client:
            return await act(client)

    return asyncio.run(run())


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def frame(image, time_s=0.0, suffix=".jpg"):
    return struct.pack("<d", time_s) + encoded(image, suffix)


async def post(client, body, name="a.png", **headers):
    async with client.post("/photo", params={"name": name}, data=body, headers=headers) as response:
        return response.status, await response.json()


async def follow(client, image, count=1):
    """The answers to as many frames."""
    async with client.ws_connect("/live") as live:
        answers = []
        for number in range(count):
            await live.send_bytes(frame(image, number / 30))
            answers.append(await live.receive_json())
    return answers


def test_the_page_and_all_that_it_names_come_from_this_server(shipped):
    async def act(client):
        pending, seen = ["/"], {}
        while pending:
            path = pending.pop()
            async with client.get(path) as response:
                assert response.status == 200, path
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                seen[path] = response.content_type
                text = await response.text()
            named = re.findall(r'(?:src|href)="([^"]+)"', text) + re.findall(r'from "\./([^"]+)"', text)
            pending += [f"/{name}" for name in named if f"/{name}" not in seen]
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg|localhost)", text), path
        for path in ("/web.py", "/..%2fweb.py"):
            async with client.get(path) as response:
                assert response.status == 404
        async with client.get("/about") as response:
            return seen, await response.json()

    kinds, about = served(shipped, act)
    assert [kinds[path] for path in ("/", "/page.css", "/icon.svg")] == ["text/html", "text/css", "image/svg+xml"]
    scripts = {f"/{path.name}" for path in web_module.PAGE.glob("*.js")}
    assert {name for name, kind in kinds.items() if kind == "text/javascript"} == scripts
    assert (about["layout"], about["num_points"], len(about["point_colours"])) == ("300w_68", 68, 68)
    assert about["groups"][0]["indices"] == list(range(17))
    assert about["point_colours"][0] == about["groups"][0]["colour"] == "#56ccf2"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:1"}, True),
        ({"Host": "[::1]:7860"}, True),
        ({"Host": "rebound.example"}, False),
        ({"Host": "127.0.0.1.rebound.example:7860"}, False),
        ({"Host": "localhost@rebound.example"}, False),
        ({"Host": "[::1"}, False),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),  # another program's page
        ({"Host": "localhost:1", "Origin": "https://foreign.example"}, False),
        ({"Host": "localhost:1", "Origin": "null"}, False),
    ],
)
def test_foreign_pages_are_turned_away_everywhere(shipped, portrait, headers, allowed):
    async def act(client):
        async with client.get("/about", headers=headers) as response:
            statuses = [response.status]
            if not allowed:
                assert "this" in (await response.json())["error"]
        statuses.append((await post(client, encoded(portrait[:64, :64]), **headers))[0])
        try:
            async with client.ws_connect("/live", headers=headers):
                statuses.append(200)
        except aiohttp.WSServerHandshakeError as error:
            statuses.append(error.status)
        return statuses

    assert served(shipped, act) == [200 if allowed else 403] * 3


def test_a_photo_gets_what_the_landmarker_says(shipped, portrait):
    face = portrait[:256, 100:356]
    pair = np.hstack([face, face[:, ::-1]])
    blank = np.full((40, 50, 3), 200, np.uint8)

    async def act(client):
        return [await post(client, encoded(image), "x y.png") for image in (pair, blank)]

    (status, two), (status_of_none, none) = served(shipped, act)
    expected = shipped(pair).to_dict()
    assert status == status_of_none == 200
    assert list(two) == ["image", "width", "height", "layout", "faces", "skipped", "ms"]
    assert (two["image"], two["width"], two["height"]) == ("x y.png", 512, 256)
    assert len(two["faces"]) == 2
    assert {"layout": two["layout"], "faces": two["faces"]} == expected
    assert {"read", "detect", "network"} <= set(two["ms"])
    assert two["skipped"] == none["skipped"] == 0
    assert (none["faces"], none["width"], none["height"]) == ([], 50, 40)


def test_doubtful_faces_of_a_photo_are_left_out_and_counted(shipped, portrait):
    face = shipped.detector(portrait).boxes[0]
    found = Detections([[5.0, 5, 60, 60], face], [0.9, 0.8])
    known = {name: getattr(shipped, name) for name in ("layout", "crop_scale", "mean_face")}
    doubting = FaceLandmarker(shipped.runtime, detector=lambda image: found, **known)
    canvas = portrait.copy()
    canvas[:70, :70] = 128

    async def act(client):
        return (await post(client, encoded(canvas)))[1]

    usual, all_of_them, first = (
        served(doubting, act, **options) for options in ({}, {"min_score": 0}, {"max_faces": 1})
    )
    assert (len(usual["faces"]), usual["skipped"]) == (1, 1)
    assert (len(all_of_them["faces"]), all_of_them["skipped"]) == (2, 0)
    assert first["faces"] == usual["faces"] == all_of_them["faces"][1:]


def test_a_photo_is_turned_as_its_exif_says(shipped, portrait):
    upright = portrait[:256, 100:356]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(upright[:, :200]))).save(stored, "JPEG", quality=98, exif=exif)
    _, answer = served(shipped, lambda client: post(client, stored.getvalue(), "turned.jpg"))
    assert (answer["width"], answer["height"]) == (200, 256)
    (face,) = answer["faces"]
    expected = shipped(upright[:, :200].copy()).points[0]
    assert np.linalg.norm(np.array(face["points"]) - expected, axis=1).mean() < 1.0


def huge_png():
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + b"\0\0\0\0" + b"\0\0\0\0IEND\xaeB`\x82"


BAD = {
    "text": (lambda image: b"some words", "not an image"),
    "empty": (lambda image: b"", "empty"),
    "cut off": (lambda image: encoded(image, ".jpg")[:5000], "cut off after 5000 bytes"),
    "HEIC": (lambda image: b"\0\0\0\x18ftypheic" + bytes(50), "convert it to JPEG"),
    "claims 60000 x 60000": (lambda image: huge_png(), "60000 x 60000 pixels"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_photos_and_frames_get_a_sentence(shipped, portrait, what):
    make, words = BAD[what]
    body = make(portrait)

    async def act(client):
        status, answer = await post(client, body, "bad.jpg")
        async with client.ws_connect("/live") as live:
            await live.send_bytes(struct.pack("<d", 0.0) + body)
            refused = await live.receive_json()
            await live.send_bytes(frame(portrait, 0.1))
            return status, answer, refused, await live.receive_json()

    status, answer, refused, after = served(shipped, act)
    assert status == 422
    assert answer["error"].startswith("bad.jpg: ")
    assert words in answer["error"]
    assert list(refused) == ["error"]
    assert (after["frame"], len(after["faces"])) == (0, 1)  # the connection goes on


def test_too_large_a_photo_is_refused_unread(shipped, monkeypatch):
    monkeypatch.setattr(web_module, "LARGEST_PHOTO_BYTES", 2**20)

    async def in_pieces():
        for _ in range(20):
            yield bytes(2**17)

    async def act(client):
        return await post(client, bytes(2**20 + 1)), await post(client, in_pieces())

    for status, answer in served(shipped, act):
        assert status == 413
        assert answer["error"] == "the photo has more than 1 MB; save it smaller"


def test_max_faces(shipped, portrait):
    pair = np.hstack([portrait[:256, 100:356]] * 2)
    (live,) = served(shipped, lambda client: follow(client, pair), max_faces=1)
    assert len(live["faces"]) == 1


def test_two_pages_follow_their_own_faces_with_their_own_ids(shipped, portrait):
    pair = np.hstack([portrait[:256, 100:356]] * 2)

    async def act(client):
        return await asyncio.gather(follow(client, portrait, 4), follow(client, pair, 6))

    one, two = served(shipped, act)
    assert [[face["id"] for face in answer["faces"]] for answer in one] == [[0]] * 4
    assert [[face["id"] for face in answer["faces"]] for answer in two] == [[0, 1]] * 6
    for answers, count in ((one, 4), (two, 6)):
        assert [answer["frame"] for answer in answers] == list(range(count))
        assert [answer["time"] for answer in answers] == [number / 30 for number in range(count)]
    expected = shipped(portrait).points[0]
    for answer in one:
        (face,) = answer["faces"]
        assert (answer["width"], answer["height"], answer["layout"]) == (512, 512, "300w_68")
        assert np.linalg.norm(np.array(face["points"]) - expected, axis=1).mean() < 2.0
        assert len(face["scores"]) == 68
    assert "detect" in one[0]["ms"]
    assert "detect" not in one[1]["ms"]  # tracked
    assert one[1]["ms"]["network"] > 0


def test_messages_that_are_no_frames(shipped, portrait, monkeypatch):
    monkeypatch.setattr(web_module, "LARGEST_FRAME_BYTES", 2**20)

    async def act(client):
        async with client.ws_connect("/live") as live:
            await live.send_str("hello")
            errors = [(await live.receive_json())["error"]]
            for message in (b"", b"12345678", frame(portrait, float("nan"))):
                await live.send_bytes(message)
                errors.append((await live.receive_json())["error"])
            await live.send_bytes(bytes(2**20 + 1))
            last = await live.receive()
            return errors, last.type, live.close_code

    errors, kind, code = served(shipped, act)
    for error, words in zip(errors, ("binary message", "0 bytes", "8 bytes", "seconds, got nan"), strict=True):
        assert words in error
    assert kind in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


class HeldRuntime:
    """The network, that waits until it is let go."""

    def __init__(self, runtime):
        self._runtime = runtime
        self.entered, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._runtime, name)

    def __call__(self, crops):
        self.entered.set()
        assert self.go.wait(30)
        return self._runtime(crops)


def test_a_frame_under_way_blocks_nobody_and_its_page_may_leave(shipped, portrait, caplog):
    slow = copy.copy(shipped)
    slow.runtime = held = HeldRuntime(shipped.runtime)

    async def act(client):
        leaving = await client.ws_connect("/live")
        await leaving.send_bytes(frame(portrait))
        await asyncio.to_thread(held.entered.wait, 30)
        async with client.get("/about") as response:  # the network is held and the server answers
            assert response.status == 200
        leaving._response.close()  # no goodbye: the connection just ends
        held.go.set()
        return (await follow(client, portrait))[0]

    assert len(served(slow, act)["faces"]) == 1
    assert not [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_too_many_pages_are_told(shipped):
    async def act(client):
        async with contextlib.AsyncExitStack() as stack:
            pages = [await stack.enter_async_context(client.ws_connect("/live")) for _ in range(web_module.MOST_PAGES)]
            refused = await stack.enter_async_context(client.ws_connect("/live"))
            message = await refused.receive()
            await pages[0].close()
            again = await stack.enter_async_context(client.ws_connect("/live"))
            await again.send_str("")
            return message, (await again.receive_json())["error"]

    message, error = served(shipped, act)
    assert message.data == aiohttp.WSCloseCode.TRY_AGAIN_LATER
    assert "8 pages" in message.extra
    assert "binary message" in error


def test_a_mistake_in_the_server_is_said_without_its_details(shipped, portrait, monkeypatch, caplog):

    def wrong(*arguments, **settings):
        raise RuntimeError("inside")

    monkeypatch.setattr(web_module, "decode_page_image", wrong)

    async def act(client):
        photo = await post(client, encoded(portrait[:32, :32]))
        async with client.ws_connect("/live") as live:
            await live.send_bytes(frame(portrait))
            return photo, await live.receive()

    (status, answer), message = served(shipped, act)
    assert status == 500
    assert message.data == aiohttp.WSCloseCode.INTERNAL_ERROR
    for said in (answer["error"], message.extra):
        assert "terminal" in said
        assert "inside" not in said
    assert caplog.text.count("RuntimeError: inside") == 2


def test_a_taken_port_and_another_machine_are_one_sentence(shipped, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert web_module.serve(shipped, port=port) == 2
    printed, complaint = capsys.readouterr()
    assert printed == ""
    assert complaint == (
        f"pipnet.demo: error: port {port} is taken by another program; give another port (--web 7861) or let the "
        "system choose one (--web 0)\n"
    )
    with pytest.raises(ValueError, match=r"this machine only.*'0\.0\.0\.0'"):
        web_module.serve(shipped, host="0.0.0.0")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_command_serves_on_loopback_and_ends_on_ctrl_c():
    command = [sys.executable, "-m", "pipnet.demo", "--web", "0", "--device", "cpu", "--runtime", "onnxruntime"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        try:
            line = server.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert url, line + server.stderr.read()
            with urllib.request.urlopen(f"{url[0]}about", timeout=1200) as answer:
                assert json.load(answer)["num_points"] == 68
            with pytest.raises(OSError, match="refused"):  # every address but the one it listens on
                socket.create_connection(("127.0.0.2", int(url[1])), timeout=5)

            async def interrupt():
                async with aiohttp.ClientSession() as session, session.ws_connect(f"{url[0]}live") as live:
                    server.send_signal(signal.SIGINT)
                    await live.receive()
                    return live.close_code

            assert asyncio.run(interrupt()) == aiohttp.WSCloseCode.GOING_AWAY
            printed, complaints = server.communicate(timeout=1200)
        except BaseException:
            server.kill()
            raise
    assert (server.returncode, printed, complaints) == (0, "stopped\n", "")
