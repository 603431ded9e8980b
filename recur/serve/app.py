"""The application: addresses, limits, answers. One row of `recur.serve.tasks` becomes one address under `/v1/`."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recur import __version__
from recur.engine.vision import processors
from recur.errors import RecurError
from recur.explain.page import SCRIPTS, TASK_SCRIPTS, asset
from recur.serve.bodies import KINDS, LATER, Budget, Refused, read_body, understand
from recur.serve.flow import Event, Flow
from recur.serve.guide import guide
from recur.serve.metrics import Metrics
from recur.serve.tasks import Options, Row, rows
from recur.serve.worker import Full, Job, Worker

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self)",
}
FILES = {"app.js": "text/javascript", "app.css": "text/css", "icon.svg": "image/svg+xml"}


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of its body, pixels of its picture, seconds to send it, seconds to wait for the
    answer. `room`: how many may wait; `batch`: how many are computed together by each of `workers`; `held`: bytes of
    all bodies."""

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    send_seconds: float = 30.0
    wait_seconds: float = 60.0
    room: int = 256
    batch: int = 16
    workers: int = 2
    held: int = 500_000_000


def make_app(
    predictors: Mapping[str, Any],
    *,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: tuple[str, ...] = (),
) -> FastAPI:
    """The application for `predictors` by task. With `token`, `/v1/` and `/metrics` ask for it; with `hosts`, requests
    to other host names are refused (a web page could give its own name this machine's address)."""
    metrics = Metrics()
    budget = Budget(limits.held)
    worker = Worker(batch=limits.batch, room=limits.room, threads=limits.workers, seen=metrics.batch)
    readers = ThreadPoolExecutor(processors(), thread_name_prefix="recur-reader")

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        readers.shutdown()
        await asyncio.to_thread(worker.close)

    app = FastAPI(
        title="recur",
        version=__version__,
        description='Recurrent networks on a plain CPU. Errors are `{"error": "what: got, expected; what to do"}`.',
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.add_middleware(Guard, metrics=metrics, token=token, hosts=hosts)
    served = [row for row in rows() if row.task in predictors]
    files = FILES | {row.tab: "text/javascript" for row in served if row.tab is not None}

    async def answer(row: Row, request: Request) -> Response:
        with budget.share() as take:
            body = await read_body(request, most=limits.bytes, seconds=limits.send_seconds, take=take)
            picture, options = await understand(
                request, body, row.options, file=row.file if row.takes_picture else None
            )
            return await predicted(row, request, picture, options)

    async def predicted(row: Row, request: Request, picture: bytes, options: Options) -> Response:
        predictor = predictors[row.task]
        loop = asyncio.get_running_loop()
        if worker.waiting >= limits.room:  # before the work of decoding
            raise Full
        item = await loop.run_in_executor(readers, row.prepare, predictor, picture, options, limits.pixels)
        streamed = "text/event-stream" in request.headers.get("accept", "")
        try:
            if streamed and row.live is not None:
                flow = Flow(partial(row.live, predictor, item, options))
                await flow.begin(worker, limits.wait_seconds)
                return _stream(flow.events())
            job = Job((row.path, row.key(options)), partial(_run, row, predictor, options), item)
            async with asyncio.timeout(limits.wait_seconds):
                result = await asyncio.wrap_future(worker.submit(job))
        except TimeoutError:
            raise Refused(503, "no answer in time; the service is busy; try again", **LATER) from None
        if streamed and row.events is not None:
            return _stream(_each(row.events(result)))
        return Response(_dumps(result), media_type="application/json")

    for row in served:
        app.add_api_route(
            f"/v1/{row.path}",
            _endpoint(row, answer),
            methods=["POST"],
            summary=row.summary,
            operation_id=row.path.replace("/", "_"),
            openapi_extra=_request_body(row),
            responses=_responses(row),
            response_class=JSONResponse,
        )

    async def tasks() -> JSONResponse:
        """The tasks that are served, with their models and languages."""
        told = [
            {
                "path": f"/v1/{row.path}",
                "task": row.task,
                "summary": row.summary,
                "tab": None if row.tab is None else f"/static/{row.tab}",
                "model": getattr(predictors[row.task], "name", ""),
                "languages": list(getattr(predictors[row.task], "languages", ())),
                "classes": list(getattr(predictors[row.task], "classes", ())),
                "learned": _learned(predictors[row.task]),
                "directions": [list(pair) for pair in getattr(predictors[row.task], "directions", ())],
            }
            for row in served
        ]
        return JSONResponse({"version": __version__, "tasks": told, "max_bytes": limits.bytes})

    async def health() -> JSONResponse:
        """Whether the service is up."""
        return JSONResponse({"status": "ok", "version": __version__, "waiting": worker.waiting})

    async def measured() -> PlainTextResponse:
        """Counters for Prometheus."""
        return PlainTextResponse(metrics.text(worker.waiting), media_type="text/plain; version=0.0.4")

    async def page() -> HTMLResponse:
        return HTMLResponse(_web("index.html"))

    async def docs() -> HTMLResponse:
        return HTMLResponse(guide(app.openapi()))

    async def static(name: str) -> Response:
        if name in files:
            return Response(_web(name), media_type=files[name], headers={"cache-control": "no-cache"})
        if name in (*SCRIPTS, *TASK_SCRIPTS) or name == "page.css":
            kind = "text/css" if name == "page.css" else "text/javascript"
            return Response(asset(name), media_type=kind, headers={"cache-control": "no-cache"})
        raise Refused(404, "no such file; the page is at /")

    app.add_api_route("/v1/tasks", tasks, summary="What is served")
    app.add_api_route("/healthz", health, summary="Whether the service is up")
    app.add_api_route("/metrics", measured, summary="Counters for Prometheus", response_class=PlainTextResponse)
    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route("/static/{name}", static, include_in_schema=False)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return _error(error.status, error.message, error.headers)

    async def full(_: Request, error: Exception) -> Response:
        return _error(503, "too many requests wait already; try again later", LATER)

    async def wrong(_: Request, error: Exception) -> Response:
        return _error(422, str(error), {})

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, f"{error.detail}; what is served is at /docs", dict(error.headers or {}))

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(Full, full)
    app.add_exception_handler(RecurError, wrong)
    app.add_exception_handler(HTTPException, http)
    return app


def _learned(predictor: Any) -> str | None:
    """What a model was trained on, in the words of whoever trained it."""
    bundle = getattr(predictor, "bundle", None)
    name = (bundle.meta.get("training") or {}).get("data_name") if bundle is not None else None
    return str(name) if name else None


def _endpoint(
    row: Row, answer: Callable[[Row, Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(row, request)

    return endpoint


def _run(row: Row, predictor: Any, options: Options, items: Any) -> Any:
    return row.run(predictor, items, options)


async def _each(events: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def _stream(events: AsyncIterator[Event]) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        async for name, value in events:
            yield f"event: {name}\ndata: {_dumps(value)}\n\n".encode()

    return StreamingResponse(lines(), media_type="text/event-stream")


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _error(status: int, message: str, headers: dict[str, str]) -> Response:
    line = "".join(c if c.isprintable() else " " for c in message)
    return JSONResponse({"error": line}, status_code=status, headers=headers)


def _web(name: str) -> str:
    return resources.files("recur.serve").joinpath("web", name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ OpenAPI


def _request_body(row: Row) -> dict[str, Any]:
    options = row.options.model_json_schema()
    fields: dict[str, Any] = options["properties"]

    def with_file(sent: dict[str, Any]) -> dict[str, Any]:
        if not row.takes_picture:
            return options
        named = {row.file: sent, **fields}
        return {"type": "object", "properties": named, "required": [row.file], "additionalProperties": False}

    what = KINDS[row.file][0].capitalize()
    text = {"type": "string", "description": f"{what} in base64.", "contentEncoding": "base64"}
    example = {row.file: PIXEL} if row.takes_picture else dict.fromkeys(options.get("required", ()), "Some text.")
    binary = {"type": "string", "format": "binary", "description": f"{what}."}
    content: dict[str, Any] = {
        "application/json": {"schema": with_file(text), "example": example},
        "multipart/form-data": {"schema": with_file(binary)},
    }
    if row.takes_picture:
        content[f"{row.file}/*"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def _responses(row: Row) -> dict[int | str, dict[str, Any]]:
    error = {"application/json": {"example": {"error": "image: missing or empty; expected a picture; send one"}}}
    said = {
        400: "The body cannot be understood.",
        401: "The token is missing or wrong.",
        403: "A web page of another host has sent it.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        415: "The body is of another type.",
        422: "An option is wrong, or the picture cannot be read.",
        503: "Too many requests wait; Retry-After says when to try again.",
    }
    answer: dict[str, Any] = {"application/json": {"example": row.example}}
    if row.events is not None or row.live is not None:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        200: {"description": row.summary, "content": answer},
        **{status: {"description": text, "content": error} for status, text in said.items()},
    }


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mNgYGAAAAAEAAHIdZnKAAAAAElFTkSuQmCC"  # one grey pixel


# -------------------------------------------------------------------------------------------------------------- guard


class Guard:
    """Around every request: the host name, the token, headers that keep a browser safe, and the counters."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None, hosts: tuple[str, ...]) -> None:
        self.app, self.metrics, self.hosts = app, metrics, hosts
        self.token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (self.app if refusal is None else refusal)(scope, receive, watched)
        finally:
            route = scope.get("route")
            path = str(getattr(route, "path", "other")) if status not in (404, 405) else "other"
            self.metrics.request(path, status, time.perf_counter() - begun)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        if self.hosts:
            name = headers.get(b"host", b"").decode("latin-1").lower()
            bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
            if bare.strip("[]") not in self.hosts:
                return _error(421, "another host name; expected localhost; use it, or start with --host", {})
            origin = headers.get(b"origin", b"null").decode("latin-1")
            if origin != "null" and urlsplit(origin).hostname not in self.hosts:
                return _error(403, "sent by a page of another host; expected this service's own page; use that", {})
        guarded = scope["path"].startswith("/v1/") or scope["path"] == "/metrics"
        if self.token is not None and guarded:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self.token):
                message = "the token is missing or wrong; send it as Authorization: Bearer TOKEN"
                return _error(401, message, {"www-authenticate": "Bearer"})
        return None
