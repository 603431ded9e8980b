"""The service under load: many clients at once on this machine, each with its own picture, every answer checked.

    python benchmarks/serve.py --photos FOLDER --clients 200 --seconds 60
    python benchmarks/serve.py --seconds 20                                  # made-up pictures

In one run: the rate of `recur caption` on the pictures (in this process, the service idle) before and after the load,
of which the better one counts; one client alone and the bare captioner, in turn, picture by picture; all at once.
The clients share the machine's processors with the service, so what they take is told too, and so is the processor time
of one answer: of the service, of the clients, and of `recur caption` for one picture. Processor time hardly depends on
what else the machine does: `share_by_processor_time` is the rate that it allows the service, its clients included, over
the one that it allows `recur caption`.

One JSON object is printed. An answer is right when its sentence, its log probability and its size are those of the
client's own picture. If one was wrong, or a request ended otherwise than with 200 or 503, the figures of the load are
null and the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 70.0  # seconds after the end for what was asked before: the service itself gives up after 60
ENOUGH = 0.002  # of a log probability: batches of other sizes add up in another order
FORM = b'--border\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--border--\r\n'


def made_up(count: int) -> list[bytes]:
    """JPEG files of 500 x 375: smooth blobs of colour with some grain, no two alike."""
    import numpy as np
    from PIL import Image

    out = []
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        fine = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
        grainy = (fine + random.integers(-20, 21, fine.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grainy).save(buffer, "JPEG", quality=85)
        out.append(buffer.getvalue())
    return out


def request(picture: bytes, form: bool) -> bytes:
    """One request as it goes over the wire."""
    kind, body = (b"multipart/form-data; boundary=border", FORM % picture) if form else (b"image/jpeg", picture)
    head = b"POST /v1/caption?words=false HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


@dataclass
class Told:
    """What all clients saw."""

    waits: list[float] = field(default_factory=list)  # seconds, of the answers
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0


class Connection(asyncio.Protocol):
    """A connection that stays open, one request at a time: the answer's status and body go to `answered`."""

    def __init__(self, answered: Callable[[int, bytes], None], lost: Callable[[], None]) -> None:
        self.answered, self.lost = answered, lost
        self.received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self.received = body[length:]
            self.answered(int(head[9:12]), body[:length])

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()


class Client:
    """Asks with its own picture, again and again, until the time is over; `done` is set then."""

    def __init__(self, port: int, sent: bytes, right: Callable[[bytes], bool], told: Told) -> None:
        self.port, self.sent, self.right, self.told = port, sent, right, told
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self.until = 0.0
        self.connection: Any = None
        self.begun = 0.0

    async def run(self, until: float, start: float = 0.0) -> None:
        self.until = until
        await asyncio.sleep(start)
        await self.connect()
        try:
            await asyncio.wait_for(self.done, max(0.0, until - time.perf_counter()) + PATIENCE)
        except TimeoutError:
            self.told.statuses["no answer"] += 1
        if self.connection is not None:
            self.connection.transport.close()

    async def connect(self) -> None:
        make = self.loop.create_connection(lambda: Connection(self.answered, self.lost), "127.0.0.1", self.port)
        try:
            _, self.connection = await make
        except OSError as error:
            self.told.statuses[type(error).__name__] += 1
            self.loop.call_later(1, self.again)
            return
        self.ask(self.connection)

    def again(self) -> None:
        """Connect once more, unless the time is over."""
        if time.perf_counter() < self.until:
            self.task = self.loop.create_task(self.connect())  # kept, or it might be collected
        elif not self.done.done():
            self.done.set_result(None)

    def ask(self, connection: Any) -> None:
        """Send the request on the connection, if that is still the one that is open."""
        if connection is not self.connection:
            return
        self.begun = time.perf_counter()
        if self.begun < self.until:
            connection.transport.write(self.sent)
        elif not self.done.done():
            self.done.set_result(None)

    def answered(self, status: int, body: bytes) -> None:
        self.told.statuses[str(status)] += 1
        if status == 200:
            self.told.waits.append(time.perf_counter() - self.begun)
            self.told.wrong += not self.right(body)
            self.ask(self.connection)
        else:
            self.loop.call_later(1 if status == 503 else 0, self.ask, self.connection)

    def lost(self) -> None:
        self.connection = None
        if not self.done.done():
            self.told.statuses["connection lost"] += 1
            self.again()


def processor_seconds(pid: int) -> float:
    """What a process has used of the processors so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """The memory that a process has now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def together(
    pid: int, port: int, sent: list[bytes], right: list[Callable[[bytes], bool]], clients: int, seconds: float
) -> tuple[Told, dict[str, Any]]:
    """`clients` at once for `seconds`: what they saw, and the figures."""
    told = Told()
    memory: list[float] = []
    begun, own, theirs = time.perf_counter(), time.process_time(), processor_seconds(pid)
    until = begun + seconds

    async def watch() -> None:
        while time.perf_counter() < until:
            memory.append(megabytes(pid))
            await asyncio.sleep(1)

    each = [Client(port, sent[n % len(sent)], right[n % len(sent)], told) for n in range(clients)]
    await asyncio.gather(watch(), *(one.run(until, n / clients) for n, one in enumerate(each)))
    took, answers = time.perf_counter() - begun, max(1, len(told.waits))
    waits = sorted(told.waits) or [0.0]
    return told, {
        "answers_a_second": round(len(told.waits) / took, 1),
        "p50_ms": round(1000 * statistics.median(waits), 1),
        "p99_ms": round(1000 * waits[int(0.99 * (len(waits) - 1))], 1),
        "service_cpu_ms": round(1000 * (processor_seconds(pid) - theirs) / answers, 2),
        "client_cpu_ms": round(1000 * (time.process_time() - own) / answers, 2),
        "memory_mb": {"first": round(memory[0]), "most": round(max(memory)), "last": round(memory[-1])},
    }


async def alone(
    port: int, sent: list[bytes], bare: Callable[[int], object], rounds: int, told: Told, right: list[Any]
) -> tuple[list[float], list[float]]:
    """What one client waits and what the bare captioner takes, in turn; seconds."""
    answers: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(lambda status, body: answers.put_nowait((status, body)), lambda: None), "127.0.0.1", port
    )
    waits, engine = [], []
    for number in range(rounds):
        place = number % len(sent)
        begun = time.perf_counter()
        connection.transport.write(sent[place])
        status, body = await asyncio.wait_for(answers.get(), 60)
        waits.append(time.perf_counter() - begun)
        told.statuses[str(status)] += 1
        told.wrong += status == 200 and not right[place](body)
        begun = time.perf_counter()
        bare(place)
        engine.append(time.perf_counter() - begun)
    connection.transport.close()
    return waits, engine


def checker(expected: Any) -> Callable[[bytes], bool]:
    """Whether an answer is that of the picture that `expected` is the caption of."""

    def right(body: bytes) -> bool:
        try:
            told = json.loads(body)
            one = told["captions"][0]
            return (
                one["caption"] == expected.caption
                and abs(one["log_prob"] - expected.log_prob) < ENOUGH
                and (told["width"], told["height"]) == (expected.width, expected.height)
            )
        except (ValueError, KeyError, IndexError, TypeError):
            return False

    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files (default: made-up pictures)")
    parser.add_argument("--pictures", type=int, default=200, help="how many to use (default: 200)")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=100, help="requests of the client alone (default: 100)")
    parser.add_argument("--bare-body", action="store_true", help="send the file itself, not a form with it")
    parser.add_argument("--model", default="captioner")
    options = parser.parse_args()

    import recur

    if options.photos is None:
        pictures = made_up(options.pictures)
    else:
        files = sorted(each for each in options.photos.iterdir() if each.suffix.lower() in (".jpg", ".jpeg"))
        pictures = [file.read_bytes() for file in files[: options.pictures]]
    captioner = recur.load(options.model)
    captions = list(captioner.stream(pictures, words=False))
    sent = [request(picture, not options.bare_body) for picture in pictures]
    right = [checker(caption) for caption in captions]

    def rate() -> tuple[float, float]:
        """Pictures a second of `recur caption`, and the processor time of one in milliseconds."""
        many = pictures * -(-600 // len(pictures))
        begun, used = time.perf_counter(), time.process_time()
        for _ in captioner.stream(many, words=False):
            pass
        took = time.perf_counter() - begun
        return len(many) / took, 1000 * (time.process_time() - used) / len(many)

    call = [sys.executable, "-m", "recur", "serve", "--port", "0", "--model", options.model]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rstrip("/\n").rpartition(":")[2])

        def bare(place: int) -> object:
            return captioner(pictures[place], words=False)

        first = Told()
        asyncio.run(alone(port, sent, bare, 10, first, right))
        waits, engine = asyncio.run(alone(port, sent, bare, options.rounds, first, right))
        rates = [rate()]
        told, figures = asyncio.run(together(process.pid, port, sent, right, options.clients, options.seconds))
        rates.append(rate())
        process.terminate()
        status = process.wait(60)
    best, cost = max(each[0] for each in rates), min(each[1] for each in rates)
    wrong = told.wrong + first.wrong
    statuses = dict(told.statuses + first.statuses)
    good = not wrong and statuses.keys() <= {"200", "503"} and status == 0
    single, plain = 1000 * statistics.median(waits), 1000 * statistics.median(engine)
    answered = figures["service_cpu_ms"] + figures["client_cpu_ms"]
    result = {
        "pictures": len(pictures),
        "different_captions": len({each.caption for each in captions}),
        "clients": options.clients,
        "seconds": options.seconds,
        "wrong": wrong,
        "statuses": statuses,
        "exit_status": status,
        "recur_caption_a_second": [round(each[0], 1) for each in rates],
        "recur_caption_cpu_ms": round(cost, 2),
        "share": round(figures["answers_a_second"] / best, 3),
        "share_by_processor_time": round(cost / answered, 3),
        **figures,
        "alone_p50_ms": round(single, 2),
        "bare_p50_ms": round(plain, 2),
        "over_bare_ms": round(single - plain, 2),
    }
    if not good:
        measured = {"share", "share_by_processor_time", "over_bare_ms", *figures}
        result = {name: None if name in measured else value for name, value in result.items()}
    print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
