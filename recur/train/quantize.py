"""The picture encoder in 8-bit numbers: three times as fast, if its captions stay as good.

Post-training quantization (Jacob et al. 2018; Nagel et al. 2021, section 3) of our own trunk: some training pictures
say in which range the values lie at each point of the network; `recur.nn.export` writes the graph. Then the captions of
the dev split are scored with both encoders, and the 8-bit one is taken only where it costs no more than `TOLERANCE`.

B pictures, Y rows and X columns of pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, check_target, read_bundle, update_bundle
from recur.data.images import iterate_pictures
from recur.errors import InputError, RecurError
from recur.hub import resolve
from recur.metrics.caption import cider_d
from recur.nn.export import export_trunk, import_trunk, is_trunk, watch_trunk
from recur.nn.vision import Trunk
from recur.predict.caption import Captioner
from recur.predict.voice import make_voice
from recur.train.caption_data import Split
from recur.train.finish import finish_bundle, look, searched, splits_for
from recur.train.graph import load_session
from recur.train.team import is_first

PICTURES = 256  # that the ranges are measured on
BATCH = 16
# Values further out are cut off, one in 100,000 at either end: steps between the others become finer. With the
# embedded captioner this, one in 10,000 and none at all cost between -0.4 and 0.5 points of CIDEr-D.
OUTLIERS = 1e-5
TOLERANCE = 0.005  # of CIDEr-D, which goes from 0 to 10: half a point as papers count


def quantize_bundle(
    *, model: str | Path, data: Path, out: Path, images: Path | None = None, language: str | None = None
) -> Path:
    """A captioner's encoder in 8-bit numbers, written with all the rest as the bundle `out` (which may be `model`).

    Ranges come from the train split of `data`; on its dev split the encoders are compared, the length penalty is
    chosen and the confidence fitted again, as after training. Raises RecurError when the encoder is not one of recur's
    own, or the data lacks a split or a language. Of several processes the first one does it.
    """
    if not is_first():
        return out
    check_target(out)
    source = resolve(model)
    bundle = read_bundle(source, task="caption")
    if not is_trunk(bundle.encoder or b""):
        raise RecurError(f"{source}: its encoder is not one of recur's own; only those can be quantized")
    train, dev = splits_for(bundle, data, images=images, language=language)
    update_bundle(source, {}, out=out)
    quantize_encoder(out, train=train, dev=dev)
    finish_bundle(out, train=train, dev=dev, log=bundle.meta.get("training", {}).get("log", []))
    return out


def quantize_encoder(path: Path, *, train: Split, dev: Split) -> bool:
    """Put an 8-bit encoder into the bundle at `path`, if dev captions stay as good; says whether it did.

    What was found is kept in `encoder.quantized` of bundle.json. Encoders of another kind are left alone.
    """
    bundle = read_bundle(path, task="caption")
    if not is_trunk(bundle.encoder or b""):
        return False
    assert bundle.encoder is not None
    trunk = import_trunk(bundle.encoder)
    ranges = measure_ranges(trunk, sample_batches(train.files, int(bundle.meta["encoder"]["size"])))
    encoders = {"float32": export_trunk(trunk), "int8": export_trunk(trunk, ranges=ranges)}
    scores = {kind: _scores(replace(bundle, encoder=encoded), dev) for kind, encoded in encoders.items()}
    lost = {lang: scores["float32"][lang] - scores["int8"][lang] for lang in scores["float32"]}
    kind = "int8" if all(points <= TOLERANCE for points in lost.values()) else "float32"
    said = ", ".join(f"{lang} {100 * points:+.2f}" for lang, points in lost.items())
    if kind == "float32":
        print(f"note: the encoder stays in floating point; in 8 bits dev CIDEr-D would lose {said}", file=sys.stderr)
    found = {"pictures": min(PICTURES, len(train)), "outliers": OUTLIERS, "dev_cider_d": scores}
    encoder = {**bundle.meta["encoder"], "arithmetic": kind, "quantized": found}
    update_bundle(path, {"encoder": encoder}, encoder=encoders[kind])
    return kind == "int8"


def measure_ranges(trunk: Trunk, batches: Iterable[NDArray[np.uint8]]) -> dict[str, tuple[float, float]]:
    """Least and greatest value at each point of a folded trunk: means over batches of pixels [B, Y, X, 3].

    Raises RecurError when there is no batch.
    """
    session = load_session(watch_trunk(trunk), name="the trunk")
    names = [each.name for each in session.get_outputs() if each.name != "features"]
    found: list[NDArray[np.float64]] = []  # each [points, 2]
    for pixels in batches:
        planes = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        values = session.run(names, {"pixels": planes})
        found.append(np.array([np.quantile(value, (OUTLIERS, 1 - OUTLIERS)) for value in values]))
    if not found:
        raise RecurError("no picture could be read to measure the encoder on; expected some in the train split")
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, np.mean(found, axis=0), strict=True)}


def sample_batches(paths: Sequence[Path | bytes], size: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures [B, Y, X, 3] evenly from the whole list: a data set may be sorted by what is in it."""
    step = max(1, len(paths) // PICTURES)
    waiting: list[NDArray[np.uint8]] = []
    for _, square in iterate_pictures(paths[::step][:PICTURES], size=size):
        if not isinstance(square, InputError):
            waiting.append(square.pixels)
        if len(waiting) == BATCH:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _scores(bundle: Bundle, dev: Split) -> dict[str, float]:
    """CIDEr-D of each language, searched as the bundle says."""
    captioner, vocabulary = Captioner(bundle), bundle.vocabulary()
    features, kept = look(captioner, dev)
    scores: dict[str, float] = {}
    for lang in captioner.languages:
        rows = [i for i, row in enumerate(kept) if dev.tokens[lang][row]]
        if rows:
            voice = make_voice(bundle, vocabulary, lang)
            found = searched(voice, features[rows])
            references = [[list(words) for words in dev.tokens[lang][kept[i]]] for i in rows]
            scores[lang] = cider_d(references, [[voice.words[token] for token in each[0].tokens] for each in found])[0]
    return scores
