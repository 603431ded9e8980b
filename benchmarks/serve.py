"""The service under load: many clients at once on this machine, each with its own picture, every answer checked.

    python benchmarks/serve.py --clients 200 --seconds 60
    python benchmarks/serve.py --photos FOLDER

Three measurements: `recur caption`'s rate on the pictures (in this process, nothing else running), one client alone
beside the bare captioner, and all clients together. The clients run on the same processors as the service. One JSON
object is printed: what a client waits (milliseconds), answers a second, the share of `recur caption`'s rate, answers
that were wrong, statuses, and the memory of the service, sampled every second.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


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


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, picture: bytes) -> tuple[int, bytes, bool]:
    """One request on a connection that stays open: status, body, and whether the connection is still good."""
    writer.write(
        b"POST /v1/caption?words=false HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: %d\r\n\r\n" % len(picture) + picture
    )
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(fields["content-length"]))
    return status, body, fields.get("connection") != "close"


async def client(
    port: int, picture: bytes, expected: str, until: float, waits: list[float], statuses: Counter[str], start: float
) -> None:
    """Ask again and again until the time is over."""
    await asyncio.sleep(start)
    streams = None
    while time.perf_counter() < until:
        begun = time.perf_counter()
        try:
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", port)
            status, body, good = await ask(*streams, picture)
        except (OSError, asyncio.IncompleteReadError) as error:
            statuses[type(error).__name__] += 1
            streams = None
            continue
        if not good:
            streams[1].close()
            streams = None
        statuses[str(status)] += 1
        if status == 200:
            waits.append(time.perf_counter() - begun)
            statuses["wrong"] += json.loads(body)["captions"][0]["caption"] != expected
        elif status == 503:
            await asyncio.sleep(1)
    if streams is not None:
        streams[1].close()


async def together(
    process: subprocess.Popen[str], port: int, pictures: list[bytes], expected: list[str], clients: int, seconds: float
) -> dict[str, Any]:
    """`clients` at once for `seconds`."""
    waits: list[float] = []
    statuses: Counter[str] = Counter()
    memory: list[float] = []
    begun = time.perf_counter()
    until = begun + seconds

    async def watch() -> None:
        while time.perf_counter() < until:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            memory.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")))
            await asyncio.sleep(1)

    tasks = [
        client(port, pictures[n % len(pictures)], expected[n % len(pictures)], until, waits, statuses, n / clients)
        for n in range(clients)
    ]
    await asyncio.gather(watch(), *tasks)
    took = time.perf_counter() - begun
    waits.sort()
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "answers_a_second": round(len(waits) / took, 1),
        "p50_ms": round(1000 * statistics.median(waits), 1) if waits else None,
        "p99_ms": round(1000 * waits[int(0.99 * (len(waits) - 1))], 1) if waits else None,
        "wrong": statuses.pop("wrong", 0),
        "statuses": dict(statuses),
        "memory_mb": {"first": round(memory[0]), "most": round(max(memory)), "last": round(memory[-1])},
    }


async def alone(port: int, pictures: list[bytes], rounds: int) -> float:
    """What one client waits, the median in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waits = []
    for number in range(rounds):
        begun = time.perf_counter()
        await ask(reader, writer, pictures[number % len(pictures)])
        waits.append(time.perf_counter() - begun)
    writer.close()
    return 1000 * statistics.median(waits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files (default: made-up pictures)")
    parser.add_argument("--pictures", type=int, default=200, help="how many to use (default: 200)")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default="captioner")
    options = parser.parse_args()

    import recur

    if options.photos is None:
        pictures = made_up(options.pictures)
    else:
        files = sorted(each for each in options.photos.iterdir() if each.suffix.lower() in (".jpg", ".jpeg"))
        pictures = [file.read_bytes() for file in files[: options.pictures]]
    captioner = recur.load(options.model)
    list(captioner.stream(pictures[:32], words=False))
    begun = time.perf_counter()
    captions = list(captioner.stream(pictures * 2, words=False))
    rate = 2 * len(pictures) / (time.perf_counter() - begun)
    expected = [caption.caption for caption in captions[: len(pictures)]]
    bare = []
    for number in range(100):
        begun = time.perf_counter()
        captioner(pictures[number % len(pictures)], words=False)
        bare.append(time.perf_counter() - begun)
    call = [sys.executable, "-m", "recur", "serve", "--port", "0", "--model", options.model]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rstrip("/\n").rpartition(":")[2])
        asyncio.run(alone(port, pictures, 20))
        single = asyncio.run(alone(port, pictures, 100))
        told = asyncio.run(together(process, port, pictures, expected, options.clients, options.seconds))
        process.terminate()
        status = process.wait(60)
    engine = 1000 * statistics.median(bare)
    print(
        json.dumps(
            {
                "pictures": len(pictures),
                "recur_caption_a_second": round(rate, 1),
                "share": round(told["answers_a_second"] / rate, 3),
                "alone_p50_ms": round(single, 2),
                "bare_p50_ms": round(engine, 2),
                "over_bare_ms": round(single - engine, 2),
                **told,
                "exit_status": status,
            }
        )
    )


if __name__ == "__main__":
    main()
