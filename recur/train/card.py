"""CARD.md: what a captioner is, what it was made from, what was measured, and what it cannot do.

Everything is taken from bundle.json, so the card cannot say anything that the bundle does not. What the bundle does
not hold is said to be unknown rather than left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

LANGUAGES: Final = {
    "ar": "Arabic", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "ru": "Russian", "th": "Thai",
    "zh": "Chinese",
}  # fmt: skip
CELLS: Final = {"lstm": "LSTM", "gru": "GRU", "rnn": "plain RNN"}
PHASES: Final = {
    "decoder": "the recurrent network alone, cross-entropy",
    "joint": "recurrent network and picture encoder together, cross-entropy",
    "cider": "self-critical training on CIDEr-D mixed with cross-entropy",
}
SCORES: Final = (
    ("bleu1", "BLEU-1"), ("bleu2", "BLEU-2"), ("bleu3", "BLEU-3"), ("bleu4", "BLEU-4"), ("meteor", "METEOR"),
    ("rouge_l", "ROUGE-L"), ("cider_d", "CIDEr-D"),
)  # fmt: skip
TOKENS: Final = {"ptb": "Penn Treebank words", "characters": "characters", "jieba": "words cut by jieba"}
UNKNOWN: Final = "not stated"


def render_card(meta: Mapping[str, Any]) -> str:
    """The card of a caption bundle as Markdown. `meta` is bundle.json; any part of it may be missing."""
    name = plain(meta.get("name") or "captioner")
    training: Mapping[str, Any] = meta.get("training") or {}
    sections = [
        f"# {name}",
        _summary(meta),
        "## Use",
        f"```sh\nrecur caption photo.jpg --model {name}{_language_option(meta)}\n```",
        "## Network",
        _network(meta),
        "## Data and terms",
        _data(training),
        "## Training",
        _training(training),
        "## Measured",
        _results(meta),
        "## Confidence",
        _confidence(meta),
        "## Limits",
        _limits(meta),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(meta: Mapping[str, Any]) -> str:
    cell = CELLS.get(meta.get("cell", ""), "recurrent network")
    looks = (
        "looks at the part of the picture that matters for the next word"
        if meta.get("attention")
        else "is shown the picture once, at the start"
    )
    made = f"Made on {meta['created']} with recur {meta.get('version', UNKNOWN)}." if meta.get("created") else ""
    languages = _and([_language(lang) for lang in meta.get("languages", ())]) or "an unknown language"
    return (
        f"Writes one sentence in {languages} about a photograph. An encoder turns the picture into features; "
        f"{_article(cell)} {cell} {looks} and says one word after the other until the sentence ends. It runs on a "
        f"plain CPU and holds nothing that can be executed. {made}"
    ).strip()


def _network(meta: Mapping[str, Any]) -> str:
    encoder: Mapping[str, Any] = meta.get("encoder") or {}
    decode: Mapping[str, Any] = meta.get("decode") or {}
    attention = meta.get("attention")
    grid = "x".join(str(side) for side in encoder.get("grid", ()))
    rows = [
        ("cell", CELLS.get(meta.get("cell", ""), meta.get("cell"))),
        ("layers x hidden units", f"{meta['layers']} x {meta['hidden']}" if {"layers", "hidden"} <= {*meta} else None),
        ("word embedding", meta.get("embedding")),
        ("attention units", "no attention" if attention == 0 else attention),
        ("vocabulary", f"{meta['vocabulary_size']} tokens" if "vocabulary_size" in meta else None),
        ("picture", f"{encoder['size']} x {encoder['size']} pixels, the whole picture" if "size" in encoder else None),
        ("features", f"{encoder['channels']} channels on a grid of {grid}" if grid and "channels" in encoder else None),
        ("arithmetic of the encoder", _arithmetic(encoder)),
        ("search", _search(decode)),
    ]
    return table(("part", "size"), [(label, UNKNOWN if value is None else value) for label, value in rows])


def _arithmetic(encoder: Mapping[str, Any]) -> str:
    """`8-bit whole numbers (CIDEr-D on dev 42.5 in floating point, 42.4 in 8 bits (en))`"""
    scores: Mapping[str, Mapping[str, float]] = (encoder.get("quantized") or {}).get("dev_cider_d") or {}
    found = "; ".join(
        f"{_times_100(before)} in floating point, {_times_100(scores['int8'].get(lang))} in 8 bits ({lang})"
        for lang, before in (scores.get("float32") or {}).items()
    )
    kind = "8-bit whole numbers" if encoder.get("arithmetic") == "int8" else "floating point"
    return f"{kind} (CIDEr-D on dev {found})" if found else kind


def _search(decode: Mapping[str, Any]) -> str | None:
    if "beam" not in decode:
        return None
    parts = [f"beam of {_by_language(decode['beam'])}"]
    if "length_penalty" in decode:
        parts.append(f"length penalty {_by_language(decode['length_penalty'])}")
    if "max_length" in decode:
        parts.append(f"at most {_by_language(decode['max_length'])} words (characters in Chinese)")
    if decode.get("consensus"):
        parts.append(f"of it the sentence nearest to what people are likely to say ({', '.join(decode['consensus'])})")
    return ", ".join(parts)


def _data(training: Mapping[str, Any]) -> str:
    pictures = training.get("pictures")
    lines = [
        f"- Trained on: {plain(training.get('data_name') or 'captioned pictures of the person who trained it')}"
        + (f", {pictures} of them in the train split." if pictures else "."),
        f"- SHA-256 of names, splits and captions: {code(training.get('data'))}.",
        f"- Picture encoder it started from: {code(training.get('encoder'))}"
        + (", trained along." if training.get("finetune_encoder") else ", left as it was."),
    ]
    if training.get("init"):
        lines.append(f"- Recurrent network it started from: {code(training['init'])}.")
    terms = training.get("terms")
    lines.append(
        f"- Terms: {plain(terms)}"
        if terms
        else "- Terms: not stated when it was trained. Those of the pictures, the captions and the encoder apply; ask "
        "the person who trained it before passing it on."
    )
    return "\n".join(lines)


def _training(training: Mapping[str, Any]) -> str:
    command = plain(training.get("command") or "")
    parts = [f"```sh\n{command}\n```" if command else "The command was not recorded."]
    options = [(key, training[key]) for key in ("seed", "batch", "min_count") if training.get(key) is not None]
    if options:
        names = {"seed": "seed", "batch": "pictures a step", "min_count": "least uses of a word"}
        parts.append("; ".join(f"{names[key]} {_by_language(value)}" for key, value in options).capitalize() + ".")
    log: Sequence[Mapping[str, Any]] = training.get("log") or ()
    rows: list[tuple[object, ...]] = []
    languages = sorted({key for row in log for key in row if f"{key}_distinct" in row})
    for phase, entries in groupby(log, key=lambda row: row.get("phase", "")):
        epochs = list(entries)
        best = [max((row[lang] for row in epochs if lang in row), default=None) for lang in languages]
        rows.append(
            (
                PHASES.get(phase, phase),
                len(epochs),
                f"{float(epochs[0]['loss']):.2f} to {float(epochs[-1]['loss']):.2f}",
                *(UNKNOWN if score is None else f"{score:.1f}" for score in best),
            )
        )
    if rows:
        heads = ("phase", "epochs", "loss", *(f"best dev CIDEr-D, {_language(lang)}, greedy" for lang in languages))
        parts.append(table(heads, rows))
    after = _after_phases(training.get("phases") or {})
    if after:
        parts += ["What each phase did, greedy captions of the dev split, scores times 100:", after]
    return "\n\n".join(parts)


def _after_phases(phases: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a phase and language: every metric of its best weights."""
    scores = [(key, label) for key, label in SCORES if key != "meteor"]
    rows = [
        (
            PHASES.get(phase, phase),
            _language(lang),
            *(_times_100(report.get(key)) for key, _ in scores),
            report.get("distinct", UNKNOWN),
            _percent(report.get("unfinished")),
        )
        for phase, reports in phases.items()
        for lang, report in reports.items()
    ]
    heads = ("after", "language", *(label for _, label in scores), "distinct", "unfinished")
    return table(heads, rows) if rows else ""


def _results(meta: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for split, reports in (meta.get("results") or {}).items():
        rows: list[tuple[object, ...]] = []
        signs: list[tuple[object, ...]] = []
        for lang, report in reports.items():
            words = [("words", report["words"])] if report.get("words") else []
            for _, scores in [("", report), *words]:
                tokens = TOKENS.get(scores.get("tokens", ""), scores.get("tokens", UNKNOWN))
                rows.append((_language(lang), tokens, *(_times_100(scores.get(key)) for key, _ in SCORES)))
            signs.append(
                (
                    _language(lang),
                    report.get("pictures", UNKNOWN),
                    report.get("distinct", UNKNOWN),
                    report.get("vocabulary", UNKNOWN),
                    number(report.get("mean_length"), 1),
                    _percent(report.get("unfinished")),
                    _percent(report.get("empty")),
                )
            )
        if rows:
            parts.append(f"On the {plain(split)} split, times 100:")
            parts.append(table(("language", "tokens", *(label for _, label in SCORES)), rows))
            heads = ("language", "pictures", "distinct captions", "words used", "mean length", "unfinished", "empty")
            parts.append(table(heads, signs))
    if not parts:
        return "Nothing was measured."
    if "dev" in meta["results"]:
        parts.append(
            "The weights, the length penalty and whether a second opinion decides were chosen on dev, so numbers on "
            "dev are a little better than those on pictures that played no part. METEOR needs a Java and is not stated "
            "without one."
        )
    return "\n\n".join(parts)


def _confidence(meta: Mapping[str, Any]) -> str:
    calibration: Mapping[str, Mapping[str, Any]] = meta.get("calibration") or {}
    if not calibration:
        return "This model has no calibrated confidence; `--min-confidence` does not work with it."
    parts = [
        "The confidence is the probability that a caption is acceptable, from how sure the search was. "
        '`--min-confidence P` answers "not sure" below P.'
    ]
    rows: list[tuple[object, ...]] = []
    for lang, entry in calibration.items():
        rows.append(
            (
                _language(lang),
                entry.get("criterion", UNKNOWN),
                _percent(entry.get("acceptable")),
                number(entry.get("ece"), 3),
                number(entry.get("brier"), 3),
                entry.get("measured", UNKNOWN),
            )
        )
    heads = ("language", "acceptable means", "acceptable", "expected calibration error", "Brier score", "measured by")
    parts.append(table(heads, rows))
    curves = {lang: entry["risk_coverage"] for lang, entry in calibration.items() if entry.get("risk_coverage")}
    if curves:
        shares = sorted({share for curve in curves.values() for share, _ in curve})
        risks = {lang: dict(map(tuple, curve)) for lang, curve in curves.items()}
        parts.append("When only the surest pictures are answered, so many answers are not acceptable:")
        parts.append(
            table(
                ("answered", *map(_language, curves)),
                [(_percent(share, 0), *(_percent(risks[lang].get(share)) for lang in curves)) for share in shares],
            )
        )
    return "\n\n".join(parts)


def _limits(meta: Mapping[str, Any]) -> str:
    size = meta.get("vocabulary_size")
    words = f"It knows {size} words and signs" if size else "It knows the words of its training captions"
    languages = _and([_language(lang) for lang in meta.get("languages", ())])
    return "\n".join(
        (
            f"- {words} and can say nothing else: no names of people, places or brands, and no text that stands in the "
            "picture. A thing it has no word for becomes the nearest one it has.",
            f"- It writes {languages or 'the languages it was trained on'} only, one sentence a picture, in the manner "
            "of its training captions.",
            "- Pictures unlike those it was trained on (drawings, documents, medical and satellite pictures, close-ups)"
            " get captions that sound right and are wrong; its confidence was fitted on pictures like the training "
            "ones and may be too high there.",
            "- Numbers of things, colours, left and right, and what people do are guesses, often the most usual one.",
            "- What it says about people (man, woman, child) comes from looks and from the habits of those who wrote"
            " the captions. Do not use it to decide anything about a person, nor where a wrong sentence can do harm.",
            "- The picture is squashed to a square before it looks: small things and very long pictures suffer.",
        )
    )


# ------------------------------------------------------------------------------------------------------- Markdown


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return plain(value).replace("|", "\\|")


def plain(value: object) -> str:
    """On one line."""
    return " ".join(str(value).split())


def code(value: object) -> str:
    """In the type of code."""
    return f"`{plain(value).replace('`', '')}`" if value else UNKNOWN


def number(value: Any, digits: int) -> str:
    """With so many digits after the point; what is not there or not finite is unknown."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _times_100(value: Any) -> str:
    return number(None if value is None else 100 * value, 1)


def _percent(value: Any, digits: int = 1) -> str:
    return UNKNOWN if value is None else f"{number(100 * value, digits)} %"


def _by_language(value: Any) -> str:
    """5, or `0.4 (en), 0.8 (zh)` where it differs by language."""
    if not isinstance(value, Mapping):
        return plain(value)
    if len({*value.values()}) == 1:
        return plain(next(iter(value.values())))
    return ", ".join(f"{each} ({lang})" for lang, each in value.items())


def _language(code: str) -> str:
    return LANGUAGES.get(code, code)


def _language_option(meta: Mapping[str, Any]) -> str:
    languages = meta.get("languages", ())
    return f" --lang {languages[0]}" if len(languages) > 1 else ""


def _article(noun: str) -> str:
    return "an" if noun == "LSTM" else "a"


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
