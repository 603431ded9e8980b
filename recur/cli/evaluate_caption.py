"""`recur evaluate caption`: how good captions are, by the published scores."""

from __future__ import annotations

import argparse
import json as json_format
import lzma
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, add_languages, add_max_pixels, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.errors import InputError, RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.data.captions import CaptionData, CaptionedPicture
    from recur.predict.caption import Caption, Captioner

SPLITS = ("train", "dev", "test", "none", "all")
EXPECTED = (
    "expected {id: captions}, COCO annotations, or a list of objects with image_id and caption (.json or .json.xz)"
)
DESCRIPTION = """\
Caption every picture of a split and score the captions against the references of the data: BLEU-1..4 (corpus, closest
reference length), ROUGE-L (beta 1.2), CIDEr-D (n 4, sigma 6), METEOR with --meteor; how many captions are distinct, how
many end unfinished; and how honest the confidence is. English and other spaced languages are scored on words as the
COCO scheme cuts them, Chinese on characters, and on words too where jieba is installed. With --references and
--candidates ready-made captions are scored instead.

--json prints one object a language, with the scores as the published code gives them (CIDEr-D from 0 to 10, the others
from 0 to 1). Without it these scores are printed times 100, as papers do.
"""
TIMES_100 = frozenset({"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor"})


def add(tasks: Commands) -> None:
    """Add the task `caption`."""
    task = tasks.add_parser(
        "caption",
        help="captions",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_caption)
    add_model(task)
    task.add_argument(
        "--data", type=Path, metavar="PATH", help="captions and pictures, in any format that training reads"
    )
    task.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the captions"
    )
    task.add_argument("--split", choices=SPLITS, default="dev", help="the part of the data to use (default: dev)")
    add_languages(task, default="all that the model and the data share")
    task.add_argument("--limit", type=whole(1), metavar="N", help="the first N pictures only")
    task.add_argument("--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step")
    add_max_pixels(task)
    task.add_argument("--references", type=Path, metavar="FILE", help="references of ready-made captions")
    task.add_argument("--candidates", type=Path, metavar="FILE", help="ready-made captions, one for each id")
    task.add_argument("--meteor", action="store_true", help="METEOR too, for English: needs Java and pycocoevalcap")
    task.add_argument("--json", action="store_true", help="one JSON object a line")


def evaluate_caption(
    *,
    model: str = "captioner",
    data: Path | None = None,
    images: Path | None = None,
    split: str = "dev",
    lang: tuple[str, ...] | None = None,
    limit: int | None = None,
    beam: int | None = None,
    max_pixels: int | None = None,
    references: Path | None = None,
    candidates: Path | None = None,
    meteor: bool = False,
    json: bool = False,
) -> int:
    """Score a model on data, or `candidates` against `references`; returns the exit status."""
    if (references is None) != (candidates is None) or (data is None) == (references is None):
        raise RecurError("nothing to measure; give --data PATH, or both --references FILE and --candidates FILE")
    if references is not None and candidates is not None:
        _show(_ready_made(references, candidates, lang[0] if lang else "en", limit, meteor=meteor), json=json)
        return 0
    assert data is not None
    from recur import load
    from recur.data.captions import read_captions
    from recur.data.images import MAX_PIXELS

    found = read_captions(data, images=images)
    captioner = load(model)
    languages = lang or tuple(each for each in captioner.languages if each in found.languages)
    pictures = _chosen(found, data, split, languages, captioner)[:limit]
    for line in found.problems:
        sys.stderr.write(visible(line) + "\n")
    begun = time.monotonic()
    most = MAX_PIXELS if max_pixels is None else max_pixels
    written = _written(captioner, pictures, languages, beam, most)
    seconds = time.monotonic() - begun
    failed = len(pictures) - len(written)
    for language in languages:
        pairs = [
            (picture.captions[language], caption)
            for picture, captions in written
            for caption in captions
            if caption.language == language and picture.captions.get(language)
        ]
        if not pairs:
            sys.stderr.write(f"recur: {language}: nothing to score; {failed} of {len(pictures)} pictures failed\n")
            continue
        result: dict[str, Any] = {"model": captioner.name, "data": str(data), "split": split}
        result |= _scores(captioner, pairs, language, meteor=meteor)
        result |= {"failed": failed, "seconds": round(seconds, 3)}
        _show(result, json=json)
    return 1 if failed else 0


def _ready_made(
    references: Path, candidates: Path, language: str, limit: int | None, *, meteor: bool
) -> dict[str, Any]:
    """The scores of captions in a file."""
    from recur.metrics.captions_report import evaluate_captions

    known, given = read_captions_file(references), read_captions_file(candidates)
    missing = [key for key in known if key not in given]
    if missing or any(len(captions) != 1 for captions in given.values()):
        what = f"{len(missing)} ids have no caption, {missing[0]!r} first" if missing else "an id has several captions"
        raise RecurError(f"{candidates}: {what}; give one caption for each id of {references}")
    keys = list(known)[:limit]
    scores = evaluate_captions([known[key] for key in keys], [given[key][0] for key in keys], language, meteor=meteor)
    return {"references": str(references), "candidates": str(candidates), **scores}


def _chosen(
    found: CaptionData, data: Path, split: str, languages: Sequence[str], captioner: Captioner
) -> list[CaptionedPicture]:
    """The pictures of the split that have references. Raises RecurError, saying what there is, when there are none."""
    if not languages:
        raise RecurError(
            f"{data}: captions in {', '.join(found.languages)}; the model writes {', '.join(captioner.languages)}; "
            "choose another model or other data"
        )
    within = [picture for picture in found.pictures if split in ("all", picture.split)]
    if not within:
        counts = {each: sum(picture.split == each for picture in found.pictures) for each in SPLITS[:-1]}
        there = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        raise RecurError(
            f"{data}: no pictures with captions in split {split!r}; there are: {there}; choose with --split"
        )
    for language in languages:
        if not any(picture.captions.get(language) for picture in within):
            there = ", ".join(dict.fromkeys(each for picture in within for each in picture.captions))
            raise RecurError(
                f"{data}: no references in {language!r} in split {split!r}; there are: {there}; see --lang"
            )
    return [picture for picture in within if any(picture.captions.get(each) for each in languages)]


def _written(
    captioner: Captioner, pictures: Sequence[CaptionedPicture], languages: Sequence[str], beam: int | None, most: int
) -> list[tuple[CaptionedPicture, tuple[Caption, ...]]]:
    """Each picture with its captions, one a language; one that fails is a line on stderr and is left out."""
    written = []
    with Progress(len(pictures), unit="pictures") as progress:
        paths = [picture.path for picture in pictures]
        results = captioner.stream_languages(paths, languages, beam=beam, max_pixels=most, words=False)
        for picture, captions in zip(pictures, results, strict=True):
            if isinstance(captions, InputError):
                progress.line(visible(str(captions)))
            else:
                written.append((picture, captions))
            progress.advance()
    return written


def _scores(
    captioner: Captioner, pairs: Sequence[tuple[tuple[str, ...], Caption]], language: str, *, meteor: bool
) -> dict[str, Any]:
    """The scores of captions, each with its references, and how honest their confidence is."""
    from recur.metrics.captions_report import evaluate_captions

    known, captions = [references for references, _ in pairs], [caption for _, caption in pairs]
    scores = evaluate_captions(known, [caption.caption or "" for caption in captions], language, meteor=meteor)
    calibration = captioner.bundle.meta.get("calibration", {}).get(language, {})
    return scores | honesty(calibration, known, captions, language)


def honesty(
    calibration: Mapping[str, Any],
    references: Sequence[Sequence[str]],
    captions: Sequence[Caption],
    language: str,
) -> dict[str, float]:
    """How honest the confidence is on these pictures: the share of acceptable captions, the mean confidence, the error.

    Acceptable is what the bundle's own calibration says: a sentence CIDEr-D of at least `level` on the model's tokens.
    """
    from recur.data.text import tokenize
    from recur.metrics.calibration import expected_calibration_error
    from recur.metrics.caption import cider_d

    confidence = [caption.confidence for caption in captions if caption.confidence is not None]
    if "level" not in calibration or len(confidence) != len(captions):
        return {}
    known = [[tokenize(text, language) for text in texts] for texts in references]
    _, scores = cider_d(known, [tokenize(caption.caption or "", language) for caption in captions])
    good = scores >= calibration["level"]
    return {
        "acceptable": float(good.mean()),
        "mean_confidence": sum(confidence) / len(confidence),
        "calibration_error": expected_calibration_error(confidence, good),
    }


def read_captions_file(path: Path) -> dict[str, list[str]]:
    """Captions by id, in the order of the file. Raises RecurError, saying what was expected."""
    try:
        content = path.read_bytes()
        value = json_format.loads(lzma.decompress(content) if path.suffix == ".xz" else content)
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise RecurError(f"{path}: not JSON ({error}); {EXPECTED}") from None
    out: dict[str, list[str]] = {}
    try:
        for key, caption in _rows(value):
            out.setdefault(str(key), []).append(caption)
    except (KeyError, TypeError):
        raise RecurError(f"{path}: JSON of another shape; {EXPECTED}") from None
    if not out:
        raise RecurError(f"{path}: no captions; {EXPECTED}")
    return out


def _rows(value: Any) -> Iterable[tuple[object, str]]:
    if isinstance(value, Mapping) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, Mapping):
        for key, captions in value.items():
            for caption in [captions] if isinstance(captions, str) else captions:
                yield key, _checked(caption)
    elif isinstance(value, list):
        for row in value:
            yield row["image_id"], _checked(row["caption"])
    else:
        raise TypeError(value)


def _checked(caption: object) -> str:
    if not isinstance(caption, str):
        raise TypeError(caption)
    return caption


def _show(result: dict[str, Any], *, json: bool) -> None:
    if json:
        print(json_line(result))
        return
    flat: dict[str, Any] = {}
    for name, value in result.items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    width = max(map(len, flat))
    for name, value in flat.items():
        if value is None:
            text = "not measured"
        elif name.rpartition(".")[2] in TIMES_100:
            text = f"{100 * value:.1f}"
        else:
            text = f"{value:.4g}" if isinstance(value, float) else visible(str(value))
        print(f"{name:<{width}}  {text}")
