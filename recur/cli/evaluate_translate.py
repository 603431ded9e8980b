"""`recur evaluate translate`: BLEU and chrF against references."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from recur.cli.options import Commands, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.cli.translate import add_languages, translator_for

DESCRIPTION = """\
Translate one side of sentence pairs and compare with the other: BLEU of lower-cased text as sacreBLEU computes it (of
characters, where the language puts no spaces between words) and chrF2. The pairs are given as for training.
"""


def add(tasks: Commands) -> None:
    """Add the task `translate`."""
    task = tasks.add_parser(
        "translate",
        help="translations",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_translate)
    add_languages(task)
    add_model(task)
    task.set_defaults(model=None)
    task.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH", help="sentence pairs")
    task.add_argument("--limit", type=whole(1), metavar="N", help="the first N pairs only")
    task.add_argument("--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step")
    task.add_argument("--json", action="store_true", help="one JSON object")


def evaluate_translate(
    *,
    data: list[Path],
    source: str | None = None,
    target: str | None = None,
    model: str | None = None,
    limit: int | None = None,
    beam: int | None = None,
    json: bool = False,
) -> int:
    """Measure; returns the exit status. The arguments are the options of the command."""
    from recur.data.pairs import read_pairs
    from recur.metrics.translation import bleu, chrf
    from recur.predict.translation import UNSPACED, Translator

    translator = translator_for(model, source, target)
    assert isinstance(translator, Translator)
    first, second = translator.direction(source, target)
    pairs = read_pairs(data, first, second)
    for line in pairs.problems:
        sys.stderr.write(visible(line) + "\n")
    texts, truth = pairs.source[:limit], pairs.target[:limit]
    begun = time.perf_counter()
    found = [each.translation for each in translator(texts, source=first, target=second, beam=beam)]
    row = {
        "model": translator.name,
        "from": first,
        "to": second,
        "pairs": len(texts),
        "bleu": round(bleu(found, truth, cut="char" if second in UNSPACED else "13a"), 2),
        "chrf": round(chrf(found, truth), 2),
        "sentences_a_second": round(len(texts) / (time.perf_counter() - begun), 1),
    }
    print(json_line(row) if json else "  ".join(f"{name} {value}" for name, value in row.items()))
    return 1 if pairs.problems else 0
