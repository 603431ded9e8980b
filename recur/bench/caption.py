"""`caption`: photographs on disk to sentences, beside BLIP-base and ViT-GPT2 as `transformers` runs them.

The others have random weights: how long they take does not depend on them, and they write exactly 12 tokens, greedily.
Their pictures are ready in memory; recur reads, decodes and resizes JPEG files and searches with the model's own beam.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from recur.bench.measure import Row, compare, load, peak_memory, require, together
from recur.data.images import find_pictures
from recur.engine.vision import processors
from recur.errors import RecurError
from recur.predict.caption import Captioner

PICTURES, SIDES, TOKENS = 1000, (500, 375), 12
NEED_RATIO, NEED_SPEED, NEED_WARM, NEED_COLD, NEED_MEMORY = 250.0, 150.0, 12.0, 800.0, 300.0
SAME = 0.95  # of the captions: a picture's rounding may depend on how many go through the encoder at once


def write_photographs(folder: Path, count: int) -> Path:
    """`count` made-up photographs of 500 x 375 pixels: JPEG files of about 60 kB, as heavy to decode as real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    columns, rows = SIDES
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3)).astype(np.uint8))
        picture = np.asarray(small.resize(SIDES, Image.Resampling.BICUBIC)).astype(np.int16)
        grain = random.integers(-24, 25, (rows // 2, columns // 2, 1)).repeat(2, 0).repeat(2, 1)
        picture[: grain.shape[0], : grain.shape[1]] += grain
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=85)
    return folder


def run(*, model: Captioner, name: str = "captioner", photos: Path | None = None, quick: bool = False) -> Iterator[Row]:
    """Rows for many pictures, one warm picture, a cold process, and the memory. `photos`: a folder of one's own.

    Errors: Unequal when the command writes other captions than the library; RecurError for an empty folder.
    """
    with tempfile.TemporaryDirectory(prefix="recur-bench-") as made:
        folder = photos or write_photographs(Path(made) / "photographs", 32 if quick else PICTURES)
        paths = list(find_pictures([folder]))
        if len(paths) < 2:
            raise RecurError(f"{folder}: {len(paths)} pictures; expected some; name another folder")
        command = ["caption", str(folder), "--model", name, "--json"]
        checked = _check(model, paths, peak_memory(command)[2])
        found: list[int] = []

        def ours() -> None:
            found.append(peak_memory(command)[1])

        others = _others(quick)
        times = together({"recur": ours, **others}, rounds=3 if quick else 5, seconds=40)
        each = {key: [t / len(paths) if key == "recur" else t for t in found] for key, found in times.items()}
        label = f"{len(paths)} JPEG files of {'made-up photographs, ' if photos is None else ''}{_size(paths[0])}"
        more = {
            "pictures_a_second": 1 / median(each["recur"]),
            "need_pictures_a_second": NEED_SPEED,
            "peak_memory_mb": max(found) / 1e6,
            "need_peak_memory_mb": NEED_MEMORY,
        }
        unit = "ms a picture"
        yield compare(
            "caption", label, each, ours="recur", against=["BLIP-base"], unit=unit, scale=1000, need=NEED_RATIO,
            checked=checked, more=more,
        )  # fmt: skip
        warm = together({"recur": lambda: model(paths[0])}, rounds=5 if quick else 30)["recur"]
        yield Row("caption", "one picture, warm", unit, {"recur": 1000 * median(warm)}, "recur", None, None, checked,
                  {"need_ms": NEED_WARM})  # fmt: skip
        cold = [peak_memory(["caption", paths[0], "--model", name])[0] for _ in range(2 if quick else 5)]
        yield Row("caption", "one picture, a process of its own", unit, {"recur": 1000 * median(cold)}, "recur",
                  None, None, checked, {"need_ms": NEED_COLD})  # fmt: skip


def _size(path: str) -> str:
    with Image.open(path) as picture:
        return f"{picture.width} x {picture.height}"


def _check(model: Captioner, paths: list[str], output: bytes) -> str:
    """That the command has written, for every picture, what the library writes when asked for it alone."""
    rows = [json.loads(line) for line in output.decode("utf-8").splitlines()]
    complete = [row["path"] for row in rows] == paths and all(row["caption"] for row in rows)
    few = rows[:: max(1, len(rows) // 50)]
    same = sum(model(row["path"])[0].caption == row["caption"] for row in few)
    told = f"{len(rows)} captions of {len(paths)} pictures, {same} of {len(few)} the same when asked for one by one"
    return require(complete and same >= SAME * len(few), "caption", told)


def _others(quick: bool) -> dict[str, Callable[[], object]]:
    """One picture of each of the other programs, on all processors. Errors: Unequal when one writes too little."""
    torch, transformers = load("torch"), load("transformers")
    transformers.logging.set_verbosity_error()
    builders: dict[str, Callable[[Any, Any], Callable[[], Any]]] = {"BLIP-base": _blip}
    if not quick:
        builders["ViT-GPT2"] = _vit_gpt2
    found: dict[str, Callable[[], object]] = {}
    for name, build in builders.items():
        torch.manual_seed(0)
        found[name] = caption = build(torch, transformers)
        tokens = int(caption().shape[1])
        require(tokens >= TOKENS, name, f"{tokens} tokens written, of {TOKENS} at least")
    return found


def _blip(torch: Any, transformers: Any) -> Callable[[], Any]:
    """The sizes of Salesforce/blip-image-captioning-base: its configuration's defaults, 384 x 384 pixels."""
    config = transformers.BlipConfig()
    config.vision_config.image_size = 384
    model = transformers.BlipForConditionalGeneration(config).eval()
    pixels = torch.rand(1, 3, 384, 384)
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "num_beams": 1}
    return _generating(torch, model, pixels, options)


def _vit_gpt2(torch: Any, transformers: Any) -> Callable[[], Any]:
    """The sizes of nlpconnect/vit-gpt2-image-captioning: ViT-base at 224 x 224 pixels and GPT-2."""
    vision = transformers.ViTConfig()
    words = transformers.GPT2Config(add_cross_attention=True, is_decoder=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, words)
    config.decoder_start_token_id = config.pad_token_id = words.bos_token_id
    model = transformers.VisionEncoderDecoderModel(config).eval()
    pixels = torch.rand(1, 3, 224, 224)
    options = {
        "max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "num_beams": 1,
        "decoder_start_token_id": words.bos_token_id, "pad_token_id": words.eos_token_id,
    }  # fmt: skip
    return _generating(torch, model, pixels, options)


def _generating(torch: Any, model: Any, pixels: Any, options: dict[str, Any]) -> Callable[[], Any]:
    def caption() -> Any:
        torch.set_num_threads(processors())
        with torch.inference_mode():
            return model.generate(pixel_values=pixels, **options)

    return caption
