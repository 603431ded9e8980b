"""Requests made up from the service's own OpenAPI document: whatever comes, the answer is no 5xx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from films import Labeller
from hypothesis import HealthCheck, Phase, given, settings
from serving import serving
from test_answer import write_reader
from test_explain_texts import write_text_models
from test_span import write_span_reader

import recur

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")


def test_no_request_that_the_document_allows_or_nearly_allows_is_an_error_of_ours(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    tried: dict[str, int] = {}
    texts = write_text_models(tmp_path)
    predictors = {
        "caption": recur.load(tiny_bundle, threads=1),
        "sentiment": recur.load(texts["sentiment"], threads=1),
        "translate": recur.load(texts["translate"], threads=1),
        "answer": recur.load(write_reader(tmp_path / "answer")),
        "span": recur.load(write_span_reader(tmp_path / "span"), threads=1),
        "language": recur.load(texts["generate"], threads=1),
        "frames": Labeller(),
    }
    with serving(predictors) as running:
        schema = schemathesis.openapi.from_dict(running.app.openapi())
        for found in schema.get_all_operations():
            operation = found.ok()
            # Without a body there is nothing to get wrong.
            modes = (
                [*schemathesis.GenerationMode] if operation.method == "post" else [schemathesis.GenerationMode.POSITIVE]
            )
            for mode in modes:

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=10 if len(modes) > 1 else 2,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=[*HealthCheck],
                )
                def one(case: Any) -> None:
                    answer = case.call(base_url=f"http://127.0.0.1:{running.port}", timeout=30)
                    assert answer.status_code < 500, answer.text
                    tried[case.path] = tried.get(case.path, 0) + 1

                one()
    names = ("caption", "sentiment", "translate", "answer", "span", "generate", "frames")
    posts = [f"/v1/{name}" for name in (*names, "explain/caption", "explain/generate", "explain/frames")]
    assert {*posts, "/healthz", "/metrics", "/v1/tasks"} <= set(tried)
    assert min(tried[path] for path in posts) >= 10
