"""All there is to say about a set of captions, in one dictionary: agreement with references, signs of poor writing."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from typing import Any

from recur.data.text import base_language, tokenize
from recur.metrics.caption import References, bleu, cider_d, rouge_l
from recur.metrics.tokenize import ptb_tokenize

Tokens = list[str]

# A caption that ends on one of these was probably cut off: 0.6 % of the human captions of Flickr8k do in English
# ("looks on"), 1.1 % in Chinese. Words that end many a good sentence ("behind", "by", "her") are left out.
_UNFINISHED_EN = """
    a an the this that these those his their its my your our and or but nor with without of in on onto upon at to
    from for into near beside between against toward towards while as than is are was were am be been being has have had
    who which whose where when very"""
_UNFINISHED_ZH = frozenset("的得在和与跟及或着把被向从往朝对是有一正")
# Written without spaces, so scored on characters.
_UNSPACED = frozenset({"bo", "dz", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})


def evaluate_captions(
    references: Sequence[Sequence[str]], candidates: Sequence[str], lang: str, *, meteor: bool = False
) -> dict[str, Any]:
    """Score captions: references [N][references of a picture], candidates [N], all as text.

    Chinese and other languages without spaces are scored on characters (Latin words and numbers stay whole, punctuation
    is dropped), everything else on PTB tokens. Keys:

    * `tokens`: "ptb" or "characters", what the scores below are computed on; `pictures`: N
    * `bleu1` .. `bleu4`, `rouge_l`, `cider_d`: corpus scores, 0..1 (CIDEr-D 0..10)
    * `meteor`: METEOR 1.5 by pycocoevalcap, for English, when `meteor` asks for it (it takes many seconds and 2 GB) and
      when pycocoevalcap and a Java are installed; else None
    * `words`: for Chinese, when `jieba` is installed, the same scores on its words, else absent
    * `distinct`: number of distinct captions; `mean_length`: tokens a caption; `vocabulary`: number of distinct tokens
    * `unfinished`: share of captions that are empty or end on a word that cannot end one ("a", "with", "的")
    * `empty`: share of captions without any token

    Raises ValueError when the lengths differ, there is no picture, or a picture has no reference.
    """
    language = base_language(lang)
    on_characters = language in _UNSPACED

    def split(text: str) -> Tokens:
        return tokenize(text, lang) if on_characters else ptb_tokenize(text)

    hypotheses = [split(text) for text in candidates]
    truth = [[split(text) for text in captions] for captions in references]
    report: dict[str, Any] = {
        "language": lang,
        "tokens": "characters" if on_characters else "ptb",
        "pictures": len(hypotheses),
        **_scores(truth, hypotheses),
        "meteor": _meteor(truth, hypotheses) if meteor and language == "en" else None,
    }
    if language == "zh" and (segment := _segmenter()) is not None:
        words = [segment(tokens) for tokens in hypotheses]
        report["words"] = {"tokens": "jieba", **_scores([[segment(t) for t in captions] for captions in truth], words)}
    count = len(hypotheses)
    report["distinct"] = len({tuple(tokens) for tokens in hypotheses})
    report["mean_length"] = sum(map(len, hypotheses)) / count
    report["vocabulary"] = len({token for tokens in hypotheses for token in tokens})
    report["unfinished"] = sum(is_unfinished(tokens, lang) for tokens in hypotheses) / count
    report["empty"] = sum(not tokens for tokens in hypotheses) / count
    return report


def is_unfinished(tokens: Sequence[str], lang: str) -> bool:
    """Whether a caption of these tokens is empty or ends on a function word. Known for English and Chinese only."""
    if not tokens:
        return True
    language = base_language(lang)
    if language == "en":
        return tokens[-1].lower() in _UNFINISHED_EN.split()
    if language == "zh":
        return tokens[-1][-1:] in _UNFINISHED_ZH
    return False


def _scores(references: References, candidates: Sequence[Tokens]) -> dict[str, float]:
    # The COCO code splits tokens that hold a no-break space everywhere but in ROUGE.
    parts = [[_parts(tokens) for tokens in captions] for captions in references]
    pieces = [_parts(tokens) for tokens in candidates]
    orders, _ = bleu(parts, pieces)
    return {
        **{f"bleu{order}": score for order, score in enumerate(orders, start=1)},
        "rouge_l": rouge_l(references, candidates)[0],
        "cider_d": cider_d(parts, pieces)[0],
    }


def _parts(tokens: Sequence[Any]) -> Tokens:
    return [part for token in tokens for part in token.split()]


def _segmenter() -> Any:
    """A function from characters to jieba's words, or None without jieba."""
    try:
        jieba = importlib.import_module("jieba")
    except ImportError:
        return None
    jieba.setLogLevel(60)

    def segment(tokens: Sequence[str]) -> Tokens:
        return [word for word in jieba.lcut("".join(tokens)) if word.strip()]

    return segment


def _meteor(references: References, candidates: Sequence[Tokens]) -> float | None:
    """METEOR by the Java program inside pycocoevalcap, or None when either is not there or does not run."""
    if shutil.which("java") is None:
        return None
    try:
        scorer = importlib.import_module("pycocoevalcap.meteor.meteor").Meteor()
    except ImportError:
        return None
    truth = {place: [" ".join(map(str, t)) for t in captions] for place, captions in enumerate(references)}
    try:
        score, _ = scorer.compute_score(truth, {place: [" ".join(tokens)] for place, tokens in enumerate(candidates)})
    except (OSError, ValueError):  # the Java there is does not run it
        return None
    finally:  # the scorer itself leaves these open
        scorer.meteor_p.stdout.close()
        scorer.meteor_p.stderr.close()
    return float(score)
