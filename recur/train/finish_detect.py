"""From a trained detection head to a bundle: 8-bit numbers, what was measured, the nouns, the card.

Everything is measured through the runtime, on the dev split.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recur.bundle import read_bundle, update_bundle, write_bundle
from recur.data.boxes import BoxedPicture
from recur.errors import RecurError
from recur.explain.precision_recall import plot_precision_recall
from recur.files import write_atomically
from recur.hub import resolve, whole_encoder
from recur.metrics.detection import Found, Truth, evaluate_detections, match, merged
from recur.nn.detection import DetectionHead, Evidence
from recur.nn.export import Ranges, import_trunk
from recur.nn.export_heads import (
    attach,
    detection_emitter,
    import_detection_head,
    import_evidence,
    ranges_of,
    watched_names,
)
from recur.predict.detect import MIN_SCORE, OUTPUTS, Detector, found_in
from recur.predict.nouns import Nouns
from recur.train.card_heads import render_detector_card
from recur.train.graph import load_session
from recur.train.heads import HeadTrunk
from recur.train.quantize import OUTLIERS, sample_batches

TOLERANCE = 0.005  # of AP50, which goes from 0 to 1
COMPARED = 250  # dev pictures that say whether 8 bits are good enough
LEAST_SCORE = 0.01  # of the detections that are measured
NAMES = "classes.json"


def finish_detector(
    out: Path,
    head: DetectionHead,
    trunk: HeadTrunk,
    meta: Mapping[str, Any],
    nouns: Nouns,
    *,
    evidence: Evidence,
    train: Sequence[BoxedPicture],
    dev: Sequence[BoxedPicture],
) -> None:
    """Write the bundle `out`: the head in 8-bit numbers where that costs no more than `TOLERANCE` of AP50 on dev."""
    head.eval()
    shapes = map_shapes(trunk.size)
    ranges = measure_head(head, trunk, [picture.path for picture in train])
    graphs = {
        "float32": attach(trunk.encoded, detection_emitter(head, shapes, evidence=evidence)),
        "int8": attach(trunk.encoded, detection_emitter(head, shapes, evidence=evidence), ranges=ranges),
    }

    def detector_with(kind: str) -> Detector:
        full = {**meta, "encoder": {**trunk.describe(OUTPUTS), "head": kind, "evidence": True}}
        write_bundle(out, full, {}, tokenizer=nouns.to_bytes(), encoder=trunk.bundled(graphs[kind]), card="")
        return Detector(read_bundle(out, task="detect"))

    some = dev[:: max(1, len(dev) // COMPARED)]
    ap50 = {
        kind: measure(detector, *detect_all(detector, some))["ap50"] or 0.0
        for kind, detector in ((kind, detector_with(kind)) for kind in graphs)
    }
    lost = ap50["float32"] - ap50["int8"]
    taken = "int8" if lost <= TOLERANCE else "float32"
    if taken == "float32":
        print(f"note: the head stays in floating point; in 8 bits dev AP50 would lose {lost:.3f}", file=sys.stderr)
    detector = detector_with(taken)
    truth, found = detect_all(detector, dev)
    results = {"dev": {**measure(detector, truth, found), "compared": {"pictures": len(some), "ap50": ap50}}}
    shown = {"min_score": best_score(truth, found, len(detector.classes)), "results": results}
    update_bundle(out, shown, card=render_detector_card({**read_bundle(out).meta, **shown}))
    plots = out.with_name(out.name + ".work")
    write_atomically(plots / "precision-recall.png", plot_precision_recall(truth, found, detector.classes))


def best_score(truth: Sequence[Truth], found: Sequence[Found], classes: int) -> float:
    """The score from which on detections are worth showing: where precision and recall, all classes together, have the
    best harmonic mean. 0.3 where nothing is found.
    """
    matches = [match(truth, found, label) for label in range(classes)]
    scores = np.concatenate([each.scores for each in matches])
    right = np.concatenate([each.right[0] for each in matches])[np.argsort(-scores, kind="stable")]
    objects = sum(each.objects for each in matches)
    if not right.any():
        return MIN_SCORE
    hits = np.cumsum(right)
    best = int(np.argmax(2 * hits / (np.arange(1, len(hits) + 1) + objects)))
    return round(float(np.sort(scores)[::-1][best]), 3)


def map_shapes(size: int) -> list[tuple[int, int]]:
    """(gy, gx) of the maps of stride 8, 16 and 32."""
    return [(size // stride, size // stride) for stride in (8, 16, 32)]


def measure_head(head: DetectionHead, trunk: HeadTrunk, pictures: Sequence[Path]) -> Ranges:
    """The least and greatest value at each point of the head, means over batches of pictures."""
    emit = detection_emitter(head, map_shapes(trunk.size), watch=True)
    watching = attach(trunk.encoded, emit)
    names = watched_names(watching)
    session = load_session(trunk.encoded + watching, name="the head")
    whole = session.get_inputs()[0].type == "tensor(uint8)"
    found = []
    for pixels in sample_batches(pictures, trunk.size):
        planes = pixels if whole else pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        values = session.run(names, {"pixels": planes})
        found.append(np.array([np.quantile(value, (OUTLIERS, 1 - OUTLIERS)) for value in values]))
    if not found:
        raise RecurError("no picture could be read to measure the head on; expected some in the train split")
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, np.mean(found, axis=0), strict=True)}


def detect_all(
    detector: Detector, pictures: Sequence[BoxedPicture], *, min_score: float = LEAST_SCORE
) -> tuple[list[Truth], list[Found]]:
    """What is in the pictures and what is found, in pixels of the annotations; nothing in what cannot be read."""
    truth, found = [], []
    results = detector.stream([picture.path for picture in pictures], min_score=min_score)
    for picture, result in zip(pictures, results, strict=True):
        found.append(found_in(result, detector.classes, picture.width, picture.height))
        truth.append(Truth(picture.boxes, picture.labels, picture.ignored))
    return truth, found


def measure(detector: Detector, truth: Sequence[Truth], found: Sequence[Found]) -> dict[str, Any]:
    """COCO's table, and the AP50 of each group of classes that are alike, taken as one."""
    report = evaluate_detections(truth, found, detector.classes)
    report["alike"] = [
        {
            "classes": [detector.classes[label] for label in group],
            "ap50": evaluate_detections(*merged(truth, found, group), ["one"])["ap50"],
        }
        for group in detector.alike
    ]
    return report


def head_of(model: str | Path, like: DetectionHead) -> DetectionHead:
    """The head of a detector, to start from. RecurError when it has other sizes than `like`."""
    bundle = read_bundle(resolve(model), task="detect")
    try:
        return import_detection_head(whole_encoder(bundle), like)
    except (KeyError, RuntimeError) as error:
        raise RecurError(
            f"{model}: its head has other sizes or classes than the one to train; leave out --init"
        ) from error


def stand_on(path: Path, captioner: Path) -> None:
    """Put the shared head of the detector at `path` on the trunk of `captioner`, which must see as the old one did: the
    same trunk written once more, with other ranges of its 8-bit numbers. Nothing is measured again.

    Errors: RecurError when the detector has a trunk of its own, or the captioner's trunk is of another kind.
    """
    bundle = read_bundle(path, task="detect")
    below = read_bundle(captioner, task="caption").encoder
    if bundle.encoder is None or "trunk" not in bundle.meta["encoder"] or below is None:
        raise RecurError(f"{path}: has a trunk of its own; expected a head that shares one; nothing is to be done")
    trunk = HeadTrunk("embedded", below, int(bundle.meta["encoder"]["size"]), True)
    channels = import_trunk(below).widths[-3:]
    head = import_detection_head(bundle.encoder, DetectionHead(channels, len(bundle.meta["classes"])))
    ranges = ranges_of(bundle.encoder, ("detect.",))
    evidence = import_evidence(bundle.encoder)
    graph = attach(below, detection_emitter(head, map_shapes(trunk.size), evidence=evidence), ranges=ranges)
    encoder = {**bundle.meta["encoder"], **trunk.describe(OUTPUTS)}
    update_bundle(path, {"encoder": encoder}, encoder=graph)


def read_nouns(given: Sequence[str], classes: Sequence[str], data: Path) -> Nouns:
    """The words that name the classes: of `LANG=FILE.json`, each {class: words}; English ones of classes.json beside
    the data where there are some; the classes' own names otherwise.
    """
    files: dict[str, Path] = {}
    for each in given:
        language, _, name = each.partition("=")
        if not language or not name:
            raise RecurError(f"--nouns {each}: expected LANG=FILE.json, such as zh=nouns.json")
        files[language] = Path(name)
    names = (data if data.is_dir() else data.parent) / NAMES
    if "en" not in files and names.is_file() and isinstance(_object(names), dict):
        files["en"] = names
    words = {"en": {name: name for name in classes}}
    for language, file in files.items():
        content = _object(file)
        if not isinstance(content, dict) or not all(isinstance(text, str) for text in content.values()):
            raise RecurError(f"{file}: expected one object, each class with its words parted by spaces; mend it")
        odd = sorted({*content} - {*classes})
        if odd:
            raise RecurError(f"{file}: {odd[0]!r} is no class; expected some of {', '.join(classes)}; mend it")
        words[language] = {word: name for name, text in content.items() for word in text.split()}
    return Nouns(words)


def _object(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise RecurError(f"{file}: cannot be read ({error.strerror}); check --nouns") from error
    except (ValueError, RecursionError) as error:
        raise RecurError(f"{file}: broken JSON ({error}); mend it") from error
