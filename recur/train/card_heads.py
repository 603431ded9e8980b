"""The cards of detectors and classifiers: what they know, where it comes from, what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recur.train.card import UNKNOWN, code, number, plain, table


def render_detector_card(meta: Mapping[str, Any]) -> str:
    """The card of a detector as Markdown. `meta` is bundle.json."""
    return _card(
        meta,
        f"Finds objects of {len(meta['classes'])} classes in a photograph and draws a box around each. A head on the "
        "maps of a small CNN, one stage, no anchor boxes; it runs on a plain CPU and holds nothing executable.",
        f"recur detect photo.jpg --model {plain(meta['name'])}",
        _detector_results(meta),
        (
            "- It knows these classes and no others: " + ", ".join(map(plain, meta["classes"])) + ".",
            "- The annotators drew boxes around what the captions speak of, and only that; what nobody mentioned "
            "counts as wrong when it is found, so the figures are lower than what one sees.",
            "- The picture is squashed to a square before it looks: small things are often missed.",
            "- man, woman, boy, girl and child are what annotators called people in pictures, from looks alone. Do not "
            "use it to decide anything about a person, nor where a mistake can do harm.",
        ),
    )


def render_classifier_card(meta: Mapping[str, Any]) -> str:
    """The card of a classifier as Markdown. `meta` is bundle.json."""
    several = bool(meta.get("several"))
    what = (
        "Says which of its labels apply to a photograph, each with a probability of its own; any number may apply."
        if several
        else "Says which one of its labels fits a photograph best; the probabilities add up to 1."
    )
    return _card(
        meta,
        f"{what} A linear head on the mean features of a small CNN; it runs on a plain CPU and holds nothing that can "
        "be executed.",
        f"recur classify photo.jpg --model {plain(meta['name'])}",
        _classifier_results(meta),
        (
            f"- It knows {len(meta['classes'])} labels and no others: " + ", ".join(map(plain, meta["classes"])) + ".",
            "- Pictures unlike those it was trained on get probabilities that may be too high.",
        ),
    )


def _card(meta: Mapping[str, Any], summary: str, call: str, results: str, limits: Sequence[str]) -> str:
    training: Mapping[str, Any] = meta.get("training") or {}
    encoder: Mapping[str, Any] = meta.get("encoder") or {}
    trunk = encoder.get("trunk")
    whole = (("scores", "each with what the whole picture says of its class"),) if encoder.get("evidence") else ()
    below = f"that of the model `{plain(trunk['model'])}`, shared" if trunk else "its own, inside"
    command = plain(training.get("command") or "")
    log: Sequence[Mapping[str, Any]] = training.get("log") or ()
    course = ""
    if log:
        course = (
            f"\n\nSeed {training.get('seed', UNKNOWN)}; {len(log)} epochs; loss of the classes "
            f"{number(log[0].get('classes'), 2)} to {number(log[-1].get('classes'), 2)}."
        )
    if training.get("note"):
        course += f" {plain(training['note'])}"
    sections = [
        f"# {plain(meta['name'])}",
        summary,
        "## Use",
        f"```sh\n{call}\n```",
        "## Network",
        table(
            ("part", "what"),
            (
                ("trunk", f"{below}; left as it was in training"),
                ("picture", f"{encoder.get('size', UNKNOWN)} pixels square, the whole picture"),
                ("arithmetic of the trunk", encoder.get("arithmetic", UNKNOWN)),
                ("arithmetic of the head", encoder.get("head", "float32")),
                *whole,
            ),
        ),
        "## Data and terms",
        "\n".join(
            (
                f"- Trained on: {plain(training.get('data_name') or 'pictures of the person who trained it')}, "
                f"{training.get('pictures', UNKNOWN)} pictures in the train split.",
                f"- SHA-256 of what it was taught: {code(training.get('data'))}.",
                f"- Terms: {plain(training.get('terms') or 'not stated in training; those of the data apply')}.",
            )
        ),
        "## Training",
        (f"```sh\n{command}\n```" if command else "The command was not recorded.") + course,
        "## Measured",
        results,
        "## Limits",
        "\n".join(limits),
    ]
    return "\n\n".join(sections) + "\n"


def _detector_results(meta: Mapping[str, Any]) -> str:
    report = (meta.get("results") or {}).get("dev")
    if not report:
        return "Nothing was measured."
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
    parts = [
        f"On {report['pictures']} pictures of the dev split, which no training saw, as COCO counts it:",
        table(
            ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR 100"),
            [[number(report.get(key), 3) for key in keys]],
        ),
    ]
    parts += [
        f"AP50 of {', '.join(map(plain, each['classes']))} taken as one class: {number(each['ap50'], 3)}."
        for each in report.get("alike", ())
    ]
    pointing = (meta.get("results") or {}).get("grounding")
    if pointing:
        parts.append(
            f"Of {pointing['nouns']} nouns in captions of {pointing['pictures']} dev pictures whose class has a human "
            f"box there, {number(pointing['object'], 3)} point into one by the box that they are tied to, "
            f"{number(pointing['attention'], 3)} by the attention alone, {number(pointing['centre'], 3)} by guessing "
            "the middle of the picture."
        )
    rows = sorted(report["classes"].items(), key=lambda pair: -pair[1]["objects"])
    parts.append(
        table(
            ("class", "objects", "AP", "AP50"),
            [(name, row["objects"], number(row["ap"], 3), number(row["ap50"], 3)) for name, row in rows],
        )
    )
    return "\n\n".join(parts)


def _classifier_results(meta: Mapping[str, Any]) -> str:
    report = (meta.get("results") or {}).get("dev")
    if not report:
        return "Nothing was measured."
    names = {
        "top1": "share of pictures whose best label is right",
        "top5": "share whose right label is among the best five",
        "map": "mean average precision over labels",
        "chance_map": "mean average precision of guessing",
    }
    rows = [(names[key], number(report[key], 3)) for key in names if report.get(key) is not None]
    return f"On {report['pictures']} pictures of the dev split:\n\n" + table(("what", "value"), rows)
