"""`recur train translate`: a translator from sentences and their translations, written as a bundle.

One network may learn both directions: the token of the language tells the decoder what to write, and each step reads
pairs of one direction. The weights that are kept are an average over the last steps (Polyak & Juditsky 1992), which
is worth more than the last ones.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import Bundle, check_target, read_bundle, update_bundle, write_bundle
from recur.data.pairs import Pairs, hold_out, pairs_hash, read_pairs
from recur.data.subwords import END, UNK, Subwords, clean, learn_pieces, split_words
from recur.data.text import PAD
from recur.errors import RecurError
from recur.files import write_atomically
from recur.metrics.translation import bleu, chrf
from recur.nn.translation import TranslationNetwork
from recur.predict.translation import UNSPACED, Translator
from recur.train.card import LANGUAGES
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    copy_state,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
)
from recur.train.team import ALONE, Team, gathered, warn
from recur.train.watch import update_ratios, weights_of
from recur.train.watch_translation import gradients_to_source, pairs_to_follow, render_translation_training

RATE = 3e-3
CLIP = 1.0
SMOOTHING = 0.1
STEP_PIECES = 1_300  # of the longer side, that a step reads
POOL = 4_096  # pairs that are sorted by length together
LONGEST = 80  # pieces; longer pairs are not learned from
AVERAGE = 0.998  # of the weights, from step to step
COPIED = 10  # one pair in so many comes again with a word unknown on both sides, so that copying is learned
DEV_PAIRS = 300  # translated after each epoch
PENALTIES = (0.0, 0.5, 1.0)
ATTENTION = 96
WEAK = 20.0  # BLEU below which the card says that most sentences are wrong

Direction = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """Pairs in one direction, as pieces."""

    direction: Direction
    source: list[list[int]]
    target: list[list[int]]
    passing: bool = False  # of another kind than what is wanted: see `epoch_batches`

    def __len__(self) -> int:
        return len(self.source)


@dataclass
class Run:
    """One training: the network, what it learns from, the average of its weights, and where that was best."""

    network: TranslationNetwork
    subwords: Subwords
    train: list[Corpus]
    dev: Pairs
    word_dropout: float
    meta: dict[str, Any]
    seed: int
    epochs: int
    checkpoint: Path
    settings: dict[str, Any]
    log: list[dict[str, Any]]
    average: dict[str, Tensor]
    team: Team
    best_score: float = -1.0
    best: dict[str, Any] | None = None
    watched: list[dict[str, Any]] = field(default_factory=list)  # what the training page shows of each epoch
    ratios: dict[str, float] = field(default_factory=dict)  # of the last step of an epoch


def train_translation(
    *,
    data: Sequence[Path],
    out: Path,
    source: str,
    target: str,
    dev: Sequence[Path] | None = None,
    also: Sequence[Path] = (),
    repeat: int = 1,
    both: bool = False,
    data_name: str | None = None,
    terms: str | None = None,
    pieces: int = 5_000,
    embedding: int = 160,
    hidden: int = 256,
    encoder: int = 160,
    layers: int = 2,
    dropout: float = 0.3,
    word_dropout: float = 0.0,
    epochs: int = 10,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the pairs in `data` (see `read_pairs`), choose on those in `dev`, write the bundle `out`.

    `both`: one model for both directions. Without `dev` one pair in thirty is held out. `also`: tables of pairs of
    another kind, which teach what they can before those in `data` have the last word; the latter come `repeat` times
    in each pass. `word_dropout`: the share of pieces that a step does not see. Working files lie in `<out>.work`, which
    `resume` goes on from. Raises RecurError for data and checkpoints that cannot be used.
    """
    check_target(out)
    if source == target:
        raise RecurError(f"--from {source} --to {target}: the same language; expected two; name another")
    torch.manual_seed(seed)
    found = read_pairs(data, source, target)
    train, held = hold_out(found) if dev is None else (found, read_pairs(dev, source, target))
    others = [read_pairs([path], source, target) for path in also]
    for line in (
        *train.problems,
        *(held.problems if dev is not None else ()),
        *(line for part in others for line in part.problems),
    ):
        warn(line)
    if not len(train) or not len(held):
        raise RecurError(
            f"{data[0]}: {len(train)} pairs to learn from, {len(held)} to measure on; expected some of each"
        )
    subwords = make_subwords([*[train] * repeat, *others], source, target, pieces)
    directions: list[Direction] = [(source, target), *([(target, source)] if both else [])]
    network = TranslationNetwork(
        vocabulary=len(subwords),
        embedding=embedding,
        hidden=hidden,
        encoder=encoder,
        layers=layers,
        attention=ATTENTION,
        dropout=dropout,
    )
    settings: dict[str, Any] = {
        "data": pairs_hash([train, held, *others]),
        "directions": [list(each) for each in directions],
        "pieces": pieces,
        "embedding": embedding,
        "hidden": hidden,
        "encoder_hidden": encoder,
        "layers": layers,
        "dropout": dropout,
        "word_dropout": word_dropout,
        "repeat": repeat,
        "epochs": epochs,
        "seed": seed,
    }
    meta: dict[str, Any] = {
        "task": "translate",
        "name": out.stem,
        "languages": list(subwords.languages),
        "directions": [list(each) for each in directions],
        "cell": "lstm",
        "hidden": hidden,
        "encoder_hidden": encoder,
        "layers": layers,
        "embedding": embedding,
        "attention": ATTENTION,
        "vocabulary_size": len(subwords),
        "decode": {"beam": 5, "length_penalty": 0.0},
    }
    corpora = [
        encode(part, subwords, each, turned=number == 1, repeat=1 if passing else repeat, passing=passing)
        for part, passing in ((train, False), *((part, True) for part in others))
        for number, each in enumerate(directions)
    ]
    work = out.with_name(out.name + ".work") / "checkpoint"
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        team.settle(network)
        average = copy_state(network.state_dict())
        run = Run(network, subwords, corpora, held, word_dropout, meta, seed, epochs, work, settings, [], average, team)
        if not _train(run, stop, resume):
            team.report(stop, work.parent)
            return out
        if not team.leads:
            return out
    network.to("cpu")
    meta["training"] = {
        **settings,
        "data_name": data_name,
        "terms": terms,
        "command": shlex.join(["recur", *sys.argv[1:]]),
        "pairs": len(train) + sum(map(len, others)),
        "held_out": len(held),
        "log": run.log,
    }
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=subwords.to_bytes(), encoder=None, card="")
    finish_translation(out, held)
    page = render_translation_training(out.stem, run.log, run.watched)
    write_atomically(work.parent / "training.html", page.encode())
    return out


def make_subwords(parts: Sequence[Pairs], source: str, target: str, pieces: int) -> Subwords:
    """Pieces learned from both sides together; in each language those may be written that it was seen with."""
    sides = {source: [each.source for each in parts], target: [each.target for each in parts]}
    learned = learn_pieces((text for texts in sides.values() for part in texts for text in part), pieces)
    plain = Subwords(learned, (source, target))
    seen = {
        lang: {number for part in texts for text in part for number in plain.encode(text) if number >= plain.first}
        for lang, texts in sides.items()
    }
    return Subwords(learned, (source, target), seen)


def encode(
    pairs: Pairs, subwords: Subwords, direction: Direction, *, turned: bool, repeat: int = 1, passing: bool = False
) -> Corpus:
    """The pairs as pieces, each `repeat` times, from the second language to the first when `turned`; without those
    that are too long.

    Some pairs come a second time with a word that is the same on both sides, such as a name, unknown on both.
    """
    sources, targets = (pairs.target, pairs.source) if turned else (pairs.source, pairs.target)
    corpus = Corpus(direction, [], [], passing)
    for number, (left, right) in enumerate(zip(sources, targets, strict=True)):
        words, others = split_words(clean(left)), split_words(clean(right))
        shared = [word for word in words if word in others and word[-1:].isalnum()]
        copied = [shared[number % len(shared)]] if shared and number % COPIED == 0 else []
        for word in ("", *copied):
            made = [
                [piece for each in line for piece in ((UNK,) if each == word else subwords.encode_word(each))]
                for line in (words, others)
            ]
            if made[0] and made[1] and max(map(len, made)) <= LONGEST:
                corpus.source.extend([made[0]] * repeat)
                corpus.target.extend([made[1]] * repeat)
    return corpus


def epoch_batches(run: Run, epoch: int) -> Iterator[tuple[int, list[int]]]:
    """What each step of an epoch reads: the number of the corpus and the pairs; a function of seed and epoch alone.

    A corpus that passes is read whole in the first epoch, then less and less, and no more in the second half.
    """
    random = np.random.default_rng([run.seed, epoch])
    batches: list[tuple[int, list[int]]] = []
    for number, corpus in enumerate(run.train):
        sizes = [max(len(s), len(t)) for s, t in zip(corpus.source, corpus.target, strict=True)]
        order = random.permutation(len(corpus))
        if corpus.passing:
            order = order[: round(len(order) * max(0.0, 1 - 2 * epoch / run.epochs))]
        for start in range(0, len(order), POOL):
            batch: list[int] = []
            for row in sorted(order[start : start + POOL].tolist(), key=lambda place: sizes[place]):
                if batch and (len(batch) + 1) * sizes[row] > STEP_PIECES:
                    batches.append((number, batch))
                    batch = []
                batch.append(row)
            batches.append((number, batch))
    return iter([batches[place] for place in random.permutation(len(batches)).tolist()])


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Numbers [P, T] and lengths [P]."""
    lengths = np.array([len(row) for row in rows])
    table: NDArray[np.int64] = np.full((len(rows), int(lengths.max())), PAD, np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(table), torch.from_numpy(lengths)


def pair_loss(
    network: TranslationNetwork,
    subwords: Subwords,
    corpus: Corpus,
    rows: Sequence[int],
    word_dropout: float = 0.0,
    team: Team = ALONE,
) -> Tensor:
    """Cross-entropy a piece with label smoothing (Szegedy et al. 2016) over the pieces of the language.

    `word_dropout` of the pieces that are read, on both sides, are PAD (Gal & Ghahramani 2016; what small data needs:
    Sennrich & Zhang 2019). Of several processes each has a part of the mean.
    """
    share, device = team.share(len(rows)), team.device
    lang = corpus.direction[1]
    words = torch.from_numpy(subwords.allowed(lang))
    place = torch.full((len(subwords),), -1)
    place[words] = torch.arange(len(words))
    source, source_lengths = padded([corpus.source[row] for row in rows])
    tokens, lengths = padded([[subwords.language_id(lang), *corpus.target[row]] for row in rows])
    wanted, _ = padded([[*corpus.target[row], END] for row in rows])
    if word_dropout:
        source = source.masked_fill(torch.rand(source.shape) < word_dropout, PAD)
        tokens[:, 1:] = tokens[:, 1:].masked_fill(torch.rand(tokens[:, 1:].shape) < word_dropout, PAD)
    mine = (each[share.rows].to(device) for each in (source, source_lengths, tokens, lengths))
    packing, scores = network(*mine, words.to(device), share.among(device))
    targets = place[wanted[share.rows]].to(device)[packing.row, packing.step]
    loss = functional.cross_entropy(scores, targets, label_smoothing=SMOOTHING if network.training else 0.0)
    return share.weigh(loss, len(targets), int(lengths.sum()))


def _train(run: Run, stop: StopRequest, resume: bool) -> bool:
    """All epochs; the best averaged weights are in the network then. False when stopped before the end."""
    optimizer = torch.optim.AdamW(run.network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = 0
    if resume and has_checkpoint(run.checkpoint):
        saved = load_checkpoint(run.checkpoint)
        check_same_run(saved.extra["settings"], run.settings, path=run.checkpoint)
        first = saved.counters["epoch"]
        run.network.load_state_dict(saved.models["network"])
        run.average = {name: value.to(run.team.device) for name, value in saved.models["average"].items()}
        run.best, run.best_score = saved.models["best"], float(saved.extra["best_score"])
        run.log[:] = saved.extra["log"]
        run.watched[:] = saved.extra.get("watched", ())
        if saved.optimizer is not None:
            optimizer.load_state_dict(saved.optimizer)
    read = run.train[0]
    followed = pairs_to_follow(read.source, read.target, run.subwords, read.direction[1])
    team = run.team
    for epoch in range(first, run.epochs):
        loss = _epoch(run, epoch, optimizer, stop)
        if loss is None:
            return False
        now = copy_state(run.network.state_dict())
        run.network.load_state_dict(run.average)
        scores = team.told(partial(dev_bleu, run))
        run.network.load_state_dict(now)
        mean = float(np.mean(list(scores.values())))
        run.log.append({"epoch": epoch + 1, "loss": loss, **scores})
        if team.leads:
            back = [] if followed is None else gradients_to_source(run.network, read.source, followed)
            run.watched.append({"epoch": epoch + 1, "gradients": back, "ratios": run.ratios})
        # Of equals the later one: on tiny data every score is 0 for a while.
        if mean >= run.best_score:
            run.best_score, run.best = mean, copy_state(run.average)
        shown = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
        team.say(f"epoch {epoch + 1}/{run.epochs}  loss {loss:.3f}  dev BLEU (greedy) {shown}")
        if team.leads:
            save_checkpoint(
                run.checkpoint,
                model_states={"network": now, "average": run.average, "best": run.best or {}},
                optimizer=optimizer.state_dict(),
                counters={"epoch": epoch + 1},
                rng=random_state(),
                extra={
                    "settings": run.settings,
                    "log": run.log,
                    "watched": run.watched,
                    "best_score": run.best_score,
                },
            )
    if run.best is not None:
        run.network.load_state_dict(run.best)
    return True


def _epoch(run: Run, epoch: int, optimizer: torch.optim.Optimizer, stop: StopRequest) -> float | None:
    """One pass; the mean loss, or None when asked to stop."""
    steps = list(epoch_batches(run, epoch))
    losses: list[float] = []
    run.network.train()
    state = run.network.state_dict()
    with run.team.progress(total=len(steps), label=f"epoch {epoch + 1}/{run.epochs}") as progress:
        for step, (number, rows) in enumerate(steps):
            if run.team.any(stop.requested):
                return None
            torch.manual_seed(run.seed * 1_000_003 + epoch * 10_007 + step)
            done = epoch * len(steps) + step
            course = done / (run.epochs * len(steps))
            rise = min(1.0, (done + 1) / min(200, 1 + run.epochs * len(steps) // 10))
            for group in optimizer.param_groups:
                group["lr"] = RATE * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * course)))
            loss = pair_loss(run.network, run.subwords, run.train[number], rows, run.word_dropout, run.team)
            before = weights_of(run.network) if step == len(steps) - 1 else None
            losses.append(run.team.learn(run.network, [optimizer], loss, clip=CLIP))
            run.ratios = {} if before is None else update_ratios(before, run.network)
            new = 1 - min(AVERAGE, (1 + done) / (10 + done))
            for name, value in state.items():
                run.average[name].lerp_(value, new)
            progress.update(step + 1, f"loss {losses[-1]:.3f}")
    return float(np.mean(losses))


def dev_bleu(run: Run) -> dict[str, float]:
    """BLEU of greedy translations of some dev pairs, by direction, through the runtime."""
    weights = {name: value.cpu().numpy() for name, value in run.network.engine_weights().items()}
    bundle = Bundle(run.meta, weights, run.subwords.to_bytes(), None, "", run.checkpoint)
    translator = Translator(bundle, threads=1)
    scores = {}
    for source, target in translator.directions:
        texts, truth = sides(run.dev, translator, source)
        found = translator(texts[:DEV_PAIRS], source=source, target=target, beam=1)
        scores[f"{source}-{target}"] = score(found, truth[:DEV_PAIRS], target)["bleu"]
    return scores


def sides(pairs: Pairs, translator: Translator, source: str) -> tuple[list[str], list[str]]:
    """The texts to translate and their references, for the direction that begins with `source`."""
    first = translator.directions[0][0]
    return (pairs.source, pairs.target) if source == first else (pairs.target, pairs.source)


def score(found: Sequence[Any], truth: Sequence[str], target: str) -> dict[str, float]:
    """BLEU of lower-cased text (of characters in unspaced scripts) and chrF."""
    texts = [each.translation for each in found]
    return {
        "bleu": bleu(texts, truth, cut="char" if target in UNSPACED else "13a"),
        "chrf": chrf(texts, truth),
    }


def finish_translation(path: Path, held: Pairs) -> None:
    """Choose the length penalty on the held-out pairs, measure, and write the card; all through the runtime."""
    translator = Translator(read_bundle(path, task="translate"))
    tried: dict[float, dict[str, dict[str, float]]] = {}
    for penalty in PENALTIES:
        tried[penalty] = {}
        for source, target in translator.directions:
            texts, truth = sides(held, translator, source)
            found = list(translator.stream(texts, source=source, target=target, length_penalty=penalty))
            tried[penalty][f"{source}-{target}"] = {"pairs": len(found), **score(found, truth, target)}
    best = max(tried, key=lambda penalty: sum(each["bleu"] for each in tried[penalty].values()))
    decode = {**translator.bundle.meta["decode"], "length_penalty": best}
    meta = {**translator.bundle.meta, "decode": decode, "results": {"dev": tried[best]}}
    update_bundle(path, {"decode": decode, "results": meta["results"]}, card=translation_card(meta))


def translation_card(meta: dict[str, Any]) -> str:
    """The card of a translator as Markdown, from its bundle.json."""
    training, decode = meta["training"], meta["decode"]
    rows = [
        f"| {name} | {int(entry['pairs'])} | {entry['bleu']:.1f} | {entry['chrf']:.1f} |"
        for name, entry in meta["results"]["dev"].items()
    ]
    named = [f"{LANGUAGES.get(a, a)} to {LANGUAGES.get(b, b)}" for a, b in meta["directions"]]
    first = meta["directions"][0]
    weak = ""
    if any(entry["bleu"] < WEAK for entry in meta["results"]["dev"].values()):
        weak = "- Weak: most of its sentences are wrong in part, many as a whole, and nothing in them shows it.\n"
    return f"""# {meta["name"]}

Translates {" and ".join(named)}. A recurrent encoder reads the sentence both ways; a recurrent decoder with attention
writes its translation. It runs on a plain CPU and holds nothing that can be executed.

## Use

```sh
recur translate --model {meta["name"]} --from {first[0]} --to {first[1]} "…"
```

## Network

- Encoder: {meta["cell"].upper()}, one layer, both directions, {meta["encoder_hidden"]} units each. Decoder:
  {meta["layers"]} x {meta["hidden"]} units, additive attention with {meta["attention"]} units.
- {meta["vocabulary_size"]} pieces of words, vectors of {meta["embedding"]} numbers, shared by both sides and the head.
- Beam of {decode["beam"]}, length penalty {decode["length_penalty"]}. Words with unknown characters are copied.

## Data and terms

- Trained on: {training.get("data_name") or "sentence pairs of the person who trained it"}, {training["pairs"]} pairs.
- Terms: {training.get("terms") or "not stated"}.
- SHA-256 of all sentences: `{training["data"]}`.

## Training

`{training["command"]}`, seed {training["seed"]}.

## Measured

On held-out pairs, on which the epoch and the length penalty were chosen too. BLEU is of lower-cased text, equal to
sacreBLEU's (of characters where the language has no spaces).

| direction | pairs | BLEU | chrF2 |
|---|---|---|---|
{chr(10).join(rows)}

## Limits

{weak}- It knows the words and the kind of sentence of its training data. On other text it writes fluent nonsense: check
  what matters, and do not use it where a wrong sentence can do harm.
- Long texts are cut into sentences, each of which is translated for itself.
"""
