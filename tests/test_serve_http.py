"""The service over HTTP: right answers, readable refusals, and nothing that a client sends brings it down."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from serving import Serving, form, serving

import recur
from recur.predict.caption import Captioner

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from recur.serve.app import Limits
from recur.serve.tasks import Options, Row


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    loaded: Captioner = recur.load(tiny_bundle, threads=1)
    return loaded


@pytest.fixture(scope="module")
def service(captioner: Captioner) -> Iterator[Serving]:
    with serving({"caption": captioner}, limits=Limits(bytes=300_000, pixels=1_000_000, send_seconds=1.0)) as running:
        yield running


def said(captioner: Captioner, photo: Path, lang: str = "en", **options: Any) -> dict[str, Any]:
    (caption,) = captioner([photo], lang=lang, **options)
    return {key: value for key, value in caption.to_json().items() if key != "path"}


def test_every_kind_of_body_gives_the_caption(service: Serving, captioner: Captioner, photos: list[Path]) -> None:
    photo = photos[0].read_bytes()
    expected = {"captions": [said(captioner, photos[0], n_best=2)], "width": 100, "height": 80, "notes": []}
    assert service.post("/v1/caption", photo, n_best=2) == (200, expected)
    inside = json.dumps({"image": base64.b64encode(photo).decode(), "n_best": 2}).encode()
    for path, body, kind in (
        ("/v1/caption", inside, "application/json; charset=utf-8"),
        ("/v1/caption?n_best=2", photo, "image/png"),
        ("/v1/caption?n_best=2&lang=EN", photo, "application/octet-stream"),
        ("/v1/caption", inside.replace(b'"image": "', b'"image": "data:image/png;base64,'), "application/json"),
    ):
        status, headers, answer = service.call("POST", path, body, {"content-type": kind})
        assert (status, json.loads(answer)) == (200, expected), kind
        assert headers["content-type"] == "application/json"
        assert headers["x-content-type-options"] == "nosniff"


def test_languages_and_options(service: Serving, captioner: Captioner, photos: list[Path]) -> None:
    status, told = service.post("/v1/caption", photos[1], lang="zh,en", words="false")
    assert status == 200
    assert told["captions"] == [said(captioner, photos[1], lang, words=False) for lang in ("zh", "en")]
    assert service.post("/v1/caption", photos[1], min_confidence=1)[1]["captions"][0]["caption"] is None


def test_words_are_streamed(service: Serving, captioner: Captioner, photos: list[Path]) -> None:
    headers = {"content-type": "image/png", "accept": "text/event-stream"}
    status, got, body = service.call("POST", "/v1/caption?lang=en,zh", photos[0].read_bytes(), headers)
    assert status == 200
    assert got["content-type"].startswith("text/event-stream")
    events = [block.split("\n", 1) for block in body.decode().strip().split("\n\n")]
    told = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    for lang in ("en", "zh"):
        expected = said(captioner, photos[0], lang)
        assert [data["word"] for name, data in told if name == "word" and data["language"] == lang] == [
            word["word"] for word in expected["words"]
        ]
        assert [data["caption"] for name, data in told if name == "caption" and data["language"] == lang] == [
            expected["caption"]
        ]
    assert [name for name, _ in told][-1] == "caption"


def test_explanations_and_sentences_that_begin_otherwise(service: Serving, photos: list[Path]) -> None:
    status, told = service.post("/v1/explain/caption", photos[2], detail="inside")
    assert status == 200
    first = told["sentences"][0]
    assert [each["language"] for each in told["sentences"]] == ["en", "zh"]
    assert {"tree", "states", "end"} <= set(first)
    assert "continuations" not in first
    other = first["words"][0]["runners_up"][0]["word"]
    status, sentence = service.post("/v1/explain/caption", photos[2], lang="en", beginning=json.dumps([other]))
    assert status == 200
    assert sentence["words"][0]["word"] == other
    for fields, what in (
        ({"beginning": '["zebra"]', "lang": "en"}, "zebra"),
        ({"beginning": "[", "lang": "en"}, "JSON array"),
        ({"beginning": '["a"]'}, "expected one"),
        ({"beginning": "[1]", "lang": "en"}, "valid string"),
        ({"detail": "everything"}, "detail"),
    ):
        status, told = service.post("/v1/explain/caption", photos[2], **fields)
        assert status == 422, fields
        assert what in told["error"]


def test_many_clients_at_once_each_get_their_own(service: Serving, captioner: Captioner, photos: list[Path]) -> None:
    expected = {photo: said(captioner, photo)["caption"] for photo in photos}

    def ask(number: int) -> bool:
        photo = photos[number % len(photos)]
        status, told = service.post("/v1/caption", photo)
        return status == 200 and told["captions"][0]["caption"] == expected[photo]

    with ThreadPoolExecutor(16) as clients:
        assert all(clients.map(ask, range(64)))
    _, _, metrics = service.call("GET", "/metrics")
    text = metrics.decode()
    count = int(text.split('recur_requests_total{path="/v1/caption",status="200"} ')[1].split()[0])
    assert count >= 64
    assert "recur_waiting 0" in text
    assert int(text.split("recur_batch_size_count ")[1].split()[0]) > 0


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged(service: Serving) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 200")
        open_ones = [each.transport.get_extra_info("socket") for each in service.server.server_state.connections]
        assert any(each.getpeername() == line.getsockname() for each in open_ones)
        assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in open_ones)


# ------------------------------------------------------------------------------------------------------------ refusals


def bomb() -> bytes:
    """A PNG of a few kilobytes that claims 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb(photo: bytes) -> bytes:
    """A good PNG with a comment that unpacks to 50 megabytes."""
    packer = zlib.compressobj(1)
    data = b"Comment\0\0" + b"".join(packer.compress(bytes(1_000_000)) for _ in range(50)) + packer.flush()
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return photo[:33] + chunk + photo[33:]


def test_bodies_that_are_wrong_are_told_so_and_the_next_one_is_served(service: Serving, photos: list[Path]) -> None:
    photo = photos[0].read_bytes()
    cut = io.BytesIO()
    Image.open(photos[0]).save(cut, "JPEG")
    (kind, body), (empty_kind, empty) = form(photo), form(b"")
    cases: list[tuple[int, bytes, str, str]] = [
        (400, b"", "image/png", "the body is empty"),
        (422, empty, empty_kind, "image: missing"),
        (400, b"not json", "application/json", "not JSON"),
        (400, b"[" * 100_000, "application/json", "not JSON"),
        (400, b"[1]", "application/json", "list"),
        (422, b'{"image": "https://example.org/a.jpg"}', "application/json", "base64"),
        (422, b'{"image": "/etc/passwd"}', "application/json", "picture"),
        (422, b'{"image": 7}', "application/json", "base64"),
        (422, b"just words", "image/jpeg", "the file is text"),
        (422, photo[:200], "image/png", "cut off"),
        (422, cut.getvalue()[:500], "image/jpeg", "cut off"),
        (422, bomb(), "image/png", "20000x20000 pixels"),
        (415, photo, "text/plain; image", "content type"),
        (400, b"--x\r\nnonsense", "multipart/form-data; boundary=x", "the form is cut off"),
        (400, b"--x\r\nnonsense\r\n--x--", "multipart/form-data; boundary=x", "the form cannot be read"),
        (400, body[: len(body) // 2], kind, "the form is cut off"),
        (400, body, "multipart/form-data", "form"),
        (422, body.replace(b'name="image"', b'name="photo"'), kind, "image"),
        (413, bytes(400_000), "image/png", "too large"),
    ]
    for status, sent, content_type, what in cases:
        got, _, answer = service.call("POST", "/v1/caption", sent, {"content-type": content_type})
        assert (got, what in json.loads(answer)["error"]) == (status, True), (status, content_type, answer)
        assert b"\n" not in answer
    got, _, answer = service.call("POST", "/v1/caption", text_bomb(photo), {"content-type": "image/png"})
    assert got in (200, 422)
    got, _, _ = service.call("POST", "/v1/caption", photo, {"content-type": "image/png", "content-encoding": "gzip"})
    assert got == 415
    assert service.post("/v1/caption", photos[0])[0] == 200


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"lang": "fr"}, "expected one of en, zh"),
        ({"beam": 0}, "beam: "),
        ({"beam": "wide"}, "beam: "),
        ({"n_best": 1000}, "n_best: "),
        ({"min_confidence": "nan"}, "min_confidence: "),
        ({"file": "/etc/passwd"}, "file: "),
        ({"url": "http://127.0.0.1/"}, "url: "),
        ({"lang": "zh", "min_confidence": 0.5}, "no calibrated confidence"),
    ],
)
def test_options_that_are_wrong_are_told_so(
    service: Serving, photos: list[Path], fields: dict[str, Any], what: str
) -> None:
    status, told = service.post("/v1/caption", photos[0], **fields)
    assert status == 422
    assert what in told["error"]


def test_large_bodies_slow_bodies_and_cut_bodies_end(service: Serving, photos: list[Path]) -> None:
    def talk(*parts: bytes, wait: float = 0.0) -> bytes:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as line:
            answer = b""
            try:
                for part in parts:
                    line.sendall(part)
                    time.sleep(wait)
                while got := line.recv(65536):
                    answer += got
            except (ConnectionResetError, BrokenPipeError):
                pass
            return answer

    head = b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    claimed = talk(head + b"Content-Length: 50000000\r\n\r\n", bytes(100_000))
    assert claimed.startswith(b"HTTP/1.1 413")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    chunked = talk(head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert not chunked or chunked.startswith(b"HTTP/1.1 413")
    slow = talk(head + b"Content-Length: 1000\r\n\r\n", b"x")
    assert slow.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in slow
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as line:
        line.sendall(head + b"Content-Length: 1000\r\n\r\nonly this")
    assert talk(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert service.post("/v1/caption", photos[0])[0] == 200


def test_a_connection_on_which_nothing_comes_is_closed(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recur.serve.run.HEADER_SECONDS", 0.2)
    with serving({"caption": captioner}) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as line:
            line.sendall(b"POST /v1/caption HTTP/1.1\r\nHost: loc")
            assert line.recv(100) == b""
        assert running.post("/v1/caption", photos[0])[0] == 200


def test_a_full_queue_says_when_to_come_back(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began = threading.Event(), threading.Event()
    describe = captioner.describe

    def waiting(*arguments: Any, **options: Any) -> Any:
        began.set()
        assert go.wait(30)
        return describe(*arguments, **options)

    monkeypatch.setattr(captioner, "describe", waiting)
    with (
        serving({"caption": captioner}, limits=Limits(room=2, workers=1, wait_seconds=30)) as running,
        ThreadPoolExecutor(3) as pool,
    ):
        first = pool.submit(running.post, "/v1/caption", photos[0])
        assert began.wait(30)
        others = [pool.submit(running.post, "/v1/caption", photo) for photo in photos[1:3]]
        while json.loads(running.call("GET", "/healthz")[2])["waiting"] < 2:
            time.sleep(0.01)
        status, headers, body = running.call(
            "POST", "/v1/caption", photos[3].read_bytes(), {"content-type": "image/png"}
        )
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert "try again" in json.loads(body)["error"]
        go.set()
        assert [each.result(30)[0] for each in (first, *others)] == [200, 200, 200]


def test_an_answer_that_takes_too_long_is_given_up(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    describe = captioner.describe
    monkeypatch.setattr(captioner, "describe", lambda *a, **o: describe(*a, **o) if go.wait(30) else None)
    with serving({"caption": captioner}, limits=Limits(wait_seconds=0.2)) as running:
        status, told = running.post("/v1/caption", photos[0])
        assert (status, "busy" in told["error"]) == (503, True)
        go.set()
        status, _ = running.post("/v1/caption", photos[0])
        assert status == 200


def test_token_and_host(captioner: Captioner, photos: list[Path]) -> None:
    with serving({"caption": captioner}, token="secret é", hosts=("localhost", "127.0.0.1")) as running:
        assert running.post("/v1/caption", photos[0])[0] == 401
        for path in ("/metrics", "/v1/tasks"):
            status, headers, _ = running.call("GET", path, None, {"authorization": "Bearer wrong"})
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
        right = {"authorization": "Bearer secret é".encode().decode("latin-1")}
        assert running.call("GET", "/v1/tasks", None, right)[0] == 200
        assert running.call("GET", "/healthz")[0] == 200
        assert running.call("GET", "/")[0] == 200
        assert running.call("GET", "/healthz", None, {"host": "evil.example:80"})[0] == 421
        assert running.call("GET", "/healthz", None, {"host": "localhost:8000"})[0] == 200
        for origin, status in (("http://evil.example", 403), (f"http://localhost:{running.port}", 200), ("null", 200)):
            assert running.call("GET", "/healthz", None, {"origin": origin})[0] == status


def test_the_page_and_its_files_come_from_here_and_from_nowhere_else(service: Serving) -> None:
    status, headers, body = service.call("GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = body.decode()
    assert "style=" not in page
    names = {value for value in page.split('"') if value.startswith("/static/")}
    assert names
    for name in [
        *names,
        "/static/view.js",
        "/static/texts.js",
        "/static/draw.js",
        "/static/tree.js",
        "/static/inside.js",
    ]:
        status, _, body = service.call("GET", name)
        assert status == 200, name
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/app.py", "/nothing", "/docs/x"):
        status, _, body = service.call("GET", path)
        assert status == 404, path
        assert "error" in json.loads(body)
    assert service.call("GET", "/v1/caption")[0] == 405
    guide = service.call("GET", "/docs")[2].decode()
    assert "curl -F image=@photo.jpg" in guide


def test_tasks_and_health(service: Serving) -> None:
    told = json.loads(service.call("GET", "/v1/tasks")[2])
    assert [each["path"] for each in told["tasks"]] == ["/v1/caption", "/v1/explain/caption"]
    assert told["tasks"][0]["languages"] == ["en", "zh"]
    assert json.loads(service.call("GET", "/healthz")[2])["status"] == "ok"
    document = json.loads(service.call("GET", "/openapi.json")[2])
    body = document["paths"]["/v1/caption"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data", "image/*"}
    example = body["application/json"]["example"]
    sent = json.dumps(example).encode()
    assert service.call("POST", "/v1/caption", sent, {"content-type": "application/json"})[0] == 200


def test_all_bodies_together_are_bounded(captioner: Captioner, photos: list[Path]) -> None:
    size = photos[0].stat().st_size
    with serving({"caption": captioner}, limits=Limits(held=size + 100)) as running:
        head = (
            b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 10000\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as line:
            line.sendall(head + bytes(5000))
            kind = {"content-type": "image/png"}
            while (answer := running.call("POST", "/v1/caption", photos[0].read_bytes(), kind))[0] == 200:
                time.sleep(0.01)  # until what was sent above is held
            assert answer[0] == 503
            assert "retry-after" in answer[1]
        while running.call("POST", "/v1/caption", photos[0].read_bytes(), kind)[0] != 200:
            time.sleep(0.01)  # until it is known that the other one has gone


class Letters(Options):
    """Options of a made-up task."""

    text: str
    times: int = 1


MADE_UP = Row(
    path="repeat",
    task="repeat",
    summary="Says it again",
    takes_picture=False,
    options=Letters,
    prepare=lambda predictor, picture, options, pixels: options.text,
    key=lambda options: options.times,
    run=lambda predictor, items, options: [{"said": predictor(item) * options.times} for item in items],
    example={"said": "aa"},
    tab="repeat.js",
)


def test_another_task_is_one_file(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up_task", SimpleNamespace(ROWS=(MADE_UP,)))
    monkeypatch.setattr("recur.serve.tasks.TASKS", ("recur.serve.task_caption", "made_up_task"))
    monkeypatch.setattr("recur.serve.app._web", lambda name: f"// {name}")
    with serving({"repeat": str.upper}) as running:
        told = json.loads(running.call("GET", "/v1/tasks")[2])["tasks"]
        assert [(each["path"], each["tab"]) for each in told] == [("/v1/repeat", "/static/repeat.js")]
        assert running.call("GET", "/static/repeat.js")[2] == b"// repeat.js"
        kind = {"content-type": "application/json"}
        status, _, body = running.call("POST", "/v1/repeat", b'{"text": "ab", "times": 2}', kind)
        assert (status, json.loads(body)) == (200, {"said": "ABAB"})
        status, _, body = running.call("POST", "/v1/repeat", b'{"times": 2}', kind)
        assert (status, "text: " in json.loads(body)["error"]) == (422, True)
        assert running.call("POST", "/v1/caption", b"{}", kind)[0] == 404
        assert running.call("POST", "/v1/repeat", b"ab", {"content-type": "image/png"})[0] == 415


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_answers_what_it_took_and_ends_well(tiny_bundle: Path, photos: list[Path]) -> None:
    call = [sys.executable, "-m", "recur", "serve", "--port", "0", "--model", str(tiny_bundle), "--threads", "1"]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("recur: serving caption on http://127.0.0.1:")
        running = Serving(int(line.rstrip("/\n").rpartition(":")[2]), None)
        kind, body = form(photos[0].read_bytes())
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
            head = f"Host: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(f"POST /v1/caption HTTP/1.1\r\n{head}".encode() + body[:100])
            assert running.call("GET", "/healthz")[0] == 200  # so the request above has been taken
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            client.sendall(body[100:])
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_calls_that_cannot_be_served_end_with_a_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recur.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--model", str(tiny_bundle), "--threads", "1"]) == 2
        assert f"127.0.0.1:{port}: cannot be listened on" in capsys.readouterr().err
    assert main(["serve", "--model", str(tiny_bundle), "--model", str(tiny_bundle)]) == 2
    assert "a second model for 'caption'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("recur.serve")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["serve"]) == 2
    assert 'pip install "recur[serve]"' in capsys.readouterr().err
