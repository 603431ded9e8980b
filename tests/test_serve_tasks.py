"""The other tasks of the service: what goes in, what comes out, and which request a failure belongs to."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Serving, serving
from test_answer import write_reader
from test_predict_language import write_language_bundle
from test_span import write_span_reader

import recur
from recur.errors import InputError, RecurError
from recur.predict.classify import Labels
from recur.predict.detect import Detected, Detections
from recur.predict.sentiment import Sentiment
from recur.predict.translation import Aligned, Translation

pytest.importorskip("fastapi")


class Pictures:
    """Stands for a detector and a classifier: what is not a PNG is a problem."""

    name = "eye"

    def __init__(self, result: Any) -> None:
        self.result = result

    def stream(self, pictures: Iterable[bytes], *, max_pixels: int, **options: Any) -> Iterator[Any]:
        for picture in pictures:
            problem = None if picture.startswith(b"\x89PNG") else InputError("x", "no picture", "send one")
            yield self.result(problem, options)


class Texts:
    """Stands for a sentiment classifier and a translator: a text in capitals is a problem."""

    name = "ear"
    directions = (("en", "de"),)

    def __init__(self, result: Any) -> None:
        self.result = result

    def direction(self, source: str | None, target: str | None) -> tuple[str, str]:
        if (source, target) != ("en", "de"):
            raise RecurError(f"{source} to {target}; expected en to de; choose it")
        return "en", "de"

    def stream(self, texts: Iterable[str], **options: Any) -> Iterator[Any]:
        for text in texts:
            yield InputError("line 1", "too loud", "speak softly") if text.isupper() else self.result(text, options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return recur.load(write_language_bundle(tmp_path_factory.mktemp("language") / "tiny"), threads=1)


@pytest.fixture(scope="module")
def service(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    def detected(problem: InputError | None, options: dict[str, Any]) -> Detections:
        objects = () if problem else (Detected("dog", options["min_score"], (1.0, 2.0, 3.0, 4.0)),)
        return Detections(None, objects, problem, "eye", 9, 8)

    def labelled(problem: InputError | None, options: dict[str, Any]) -> Labels:
        return Labels(None, () if problem else (("dog", 0.9),) * options["top"], problem, "eye")

    def judged(text: str, options: dict[str, Any]) -> Sentiment:
        words, running = (("a", 0.5),) * options["words"], (("a", 0.7),) * options["running"]
        return Sentiment(text, "pos", 0.9, "en", words, "ear", running)

    def translated(text: str, options: dict[str, Any]) -> Translation:
        part = Aligned(tuple(text), tuple(text[::-1]), ((0.1, 0.9), (0.8, 0.2)))
        return Translation(text, text[::-1], -1.0, (("b", "a", 0.9),), ("en", "de"), "ear", (part,))

    predictors = {
        "detect": Pictures(detected),
        "classify": Pictures(labelled),
        "sentiment": Texts(judged),
        "translate": Texts(translated),
        "language": model,
    }
    predictors["answer"] = recur.load(write_reader(tmp_path_factory.mktemp("answer") / "tiny"))
    predictors["span"] = recur.load(write_span_reader(tmp_path_factory.mktemp("span") / "tiny"), threads=1)
    with serving(predictors) as running:
        yield running


def send(service: Serving, path: str, **fields: Any) -> tuple[int, Any]:
    body = json.dumps(fields).encode()
    status, _, answer = service.call("POST", path, body, {"content-type": "application/json"})
    return status, json.loads(answer)


def test_objects_and_labels(service: Serving, photos: list[Path]) -> None:
    dog = {"label": "dog", "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}
    expected = {"objects": [dog], "width": 9, "height": 8, "notes": [], "model": "eye"}
    assert service.post("/v1/detect", photos[0], min_score=0.5) == (200, expected)
    assert service.post("/v1/classify", photos[0], top=2)[1]["labels"] == [["dog", 0.9], ["dog", 0.9]]
    for path in ("/v1/detect", "/v1/classify"):
        assert service.post(path, b"words") == (422, {"error": "picture: no picture; send one"})
    assert service.post("/v1/detect", photos[0], min_score=2)[0] == 422


def test_sentiment_and_translation(service: Serving) -> None:
    status, told = send(service, "/v1/sentiment", text="a film")
    assert (status, told["label"], told["words"], told["running"]) == (200, "pos", [["a", 0.5]], [["a", 0.7]])
    assert send(service, "/v1/sentiment", text="a film", words=False)[1]["words"] == []
    status, told = send(service, "/v1/translate", text="ab", source="en", target="de")
    assert (status, told["translation"], told["alignment"]) == (200, "ba", [["b", "a", 0.9]])
    assert "parts" not in told
    told = send(service, "/v1/translate", text="ab", source="en", target="de", detail=True)[1]
    assert told["parts"] == [{"source": ["a", "b"], "words": ["b", "a"], "weights": [[0.1, 0.9], [0.8, 0.2]]}]
    assert send(service, "/v1/translate", text="ab", source="en", target="fr")[0] == 422
    for path in ("/v1/sentiment", "/v1/translate"):
        assert send(service, path, text="LOUD", **({"source": "en", "target": "de"} if "tr" in path else {})) == (
            422,
            {"error": "line 1: too loud; speak softly"},
        )
        assert send(service, path)[0] == 422


def test_a_question_about_a_passage(service: Serving) -> None:
    passage = "Mary went to the park. John went to the office."
    status, told = send(service, "/v1/answer", passage=passage, question="Where is Mary?")
    assert status == 200
    assert (told["question"], len(told["evidence"])) == ("Where is Mary?", 2)
    assert send(service, "/v1/answer", passage=" . ", question="Where?") == (
        422,
        {"error": "passage: no word in it; give some sentences"},
    )
    assert send(service, "/v1/answer", passage=passage, question="?")[0] == 422
    assert send(service, "/v1/answer", passage=passage)[0] == 422
    status, told = send(service, "/v1/span", passage=passage, question="Where is Mary?")
    assert status == 200
    assert told["answer"] is None or passage[told["start"] : told["end"]] == told["answer"]
    assert sum(p for _, p, _, _ in told["others"]) + told["probability"] <= 1.001
    assert send(service, "/v1/span", passage=passage, question="Where is Mary?", detail=True)[1]["asked"][0] == "Where"
    for more in ({}, {"detail": True}):
        assert send(service, "/v1/span", passage=" ", question="Where?", **more)[0] == 422
        assert send(service, "/v1/span", passage=passage, question=" ", **more)[0] == 422


def test_text_goes_on_and_is_looked_into(service: Serving) -> None:
    status, told = send(service, "/v1/generate", prompt="abc", length=50, seed=3)
    assert status == 200
    assert len(told["text"]) == 50
    assert send(service, "/v1/generate", prompt="abc", length=50, seed=3)[1] == told
    kinds = {"content-type": "application/json", "accept": "text/event-stream"}
    _, headers, body = service.call("POST", "/v1/generate?prompt=abc&length=50&seed=3", b"{}", kinds)
    assert headers["content-type"].startswith("text/event-stream")
    parts = [json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line.startswith("data")]
    assert len(parts) == 2
    assert "".join(part["text"] for part in parts) == told["text"]
    status, told = send(service, "/v1/explain/generate", text="abcab")
    assert status == 200
    assert told["nats"][0] is None
    assert all(cost > 0 for cost in told["nats"][1:])
    units = np.frombuffer(base64.b64decode(told["hidden"]["int8"]), np.int8).reshape(told["shape"])
    assert len(units) == 5
    assert np.abs(units * told["hidden"]["scale"]).max() <= 1


STREAMED = {"content-type": "application/json", "accept": "text/event-stream"}


def test_text_is_sent_while_it_is_written(service: Serving, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go, closed = threading.Event(), threading.Event()

    def endless(prompt: str, **options: Any) -> Iterator[str]:
        try:
            yield "first"
            assert go.wait(30)
            while True:
                yield "more"
        finally:
            closed.set()

    monkeypatch.setattr(model, "stream", endless)
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.request("POST", "/v1/generate", b"{}", STREAMED)
        answer = connection.getresponse()
        assert answer.readline() == b"event: text\n"
        assert answer.readline() == b'data: {"text":"first"}\n'
        go.set()
        assert b"more" in answer.read(100)
    answer.close()
    assert closed.wait(30)  # nobody reads any more: the text is not written on
    assert service.call("GET", "/healthz")[0] == 200


def test_a_text_that_fails_says_so(service: Serving, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(prompt: str, **options: Any) -> Iterator[str]:
        if prompt:
            yield prompt
        raise RecurError("out of ink; buy some")

    monkeypatch.setattr(model, "stream", failing)
    status, _, body = service.call("POST", "/v1/generate", b"{}", STREAMED)
    assert (status, json.loads(body)) == (422, {"error": "out of ink; buy some"})
    status, _, body = service.call("POST", "/v1/generate", b'{"prompt": "ab"}', STREAMED)
    assert status == 200
    assert body.decode().split("\n\n")[1] == 'event: error\ndata: {"error":"out of ink; buy some"}'
    monkeypatch.setattr(model, "stream", lambda prompt, **options: iter(()))
    assert service.call("POST", "/v1/generate", b'{"length": 0}', STREAMED)[2] == b""


def test_the_page_is_told_which_tabs_there_are(service: Serving) -> None:
    tasks = json.loads(service.call("GET", "/v1/tasks")[2])["tasks"]
    tabs = {each["task"]: each["tab"] for each in tasks if each["tab"]}
    files = {
        "sentiment": "sentiment",
        "translate": "translate",
        "answer": "answer",
        "span": "passage",
        "language": "generate",
    }
    assert tabs == {task: f"/static/{file}.js" for task, file in files.items()}
    for file in tabs.values():
        status, headers, body = service.call("GET", file)
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/javascript")
        assert b"export function open(" in body
    assert next(each for each in tasks if each["task"] == "translate")["directions"] == [["en", "de"]]
    guide = service.call("GET", "/docs")[2].decode()
    assert "curl -F text=" in guide
