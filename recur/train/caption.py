"""`recur train caption`: a captioner from pictures and sentences, written as a bundle.

What is here: reading the data, choosing the network, the order of the phases, the bundle. How a phase learns is in
`phases.py`, self-critical training in `cider.py`, batches and features in `caption_data.py`.
"""

from __future__ import annotations

import math
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recur.bundle import read_bundle, write_bundle
from recur.data.caption_shards import Shards
from recur.data.captions import hold_out, read_captions
from recur.data.text import Vocabulary
from recur.errors import RecurError
from recur.files import write_atomically
from recur.hub import resolve
from recur.nn.caption import CaptionNetwork, Cell
from recur.train.caption_data import (
    DEFAULT_MAX_WORDS,
    MAX_WORDS,
    FeatureSource,
    FrozenFeatures,
    Split,
    TrainedFeatures,
    data_hash,
    keep,
    make_split,
    read_pixels,
)
from recur.train.checkpoint import StopRequest
from recur.train.checks import check_captions, check_data
from recur.train.encoders import FeatureEncoder, open_encoder
from recur.train.feature_cache import cache_features
from recur.train.finish import BEAMS, finish_bundle
from recur.train.phases import Phase, Run, greedy_captions, train_phases
from recur.train.quantize import quantize_encoder
from recur.train.streamed import order_in, shards_in, streamed, streamed_sources
from recur.train.taught import TaughtFeatures, taught_features
from recur.train.team import gathered, is_first, warn
from recur.train.watch_caption import render_caption_training

DECODER_RATE, JOINT_RATE, ENCODER_RATE, CIDER_RATE = 1.5e-3, 5e-4, 1e-4, 2e-4
NO_REPEAT = 3  # words in a row that a caption says once: "on the beach on the beach" helps nobody
TAUGHT_RATE = 3e-4  # of an encoder that a teacher holds on course
FROZEN_SHARE = 0.25  # of the epochs, before a fine-tuned encoder starts to move


def train_caption(
    *,
    data: Path | str,
    out: Path,
    images: Path | None = None,
    language: str | None = None,
    data_name: str | None = None,
    terms: str | None = None,
    min_count: int = 5,
    cell: Cell = "lstm",
    attention: bool = True,
    hidden: int = 512,
    layers: int = 2,
    embedding: int = 256,
    dropout: float = 0.3,
    init: str | Path | None = None,
    encoder: str = "embedded",
    output_name: str | None = None,
    finetune_encoder: bool = False,
    views: int = 4,
    teacher: Path | None = None,
    epochs: int = 12,
    cider: int = 0,
    batch: int = 24,
    quantize: bool = True,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the train split of `data`, choose on its dev split, write the bundle `out`.

    `batch` counts pictures (each comes with all its captions) of one process in a step; `cider` counts epochs of
    self-critical training, which may go on from `init` without any others (`epochs` 0). A frozen encoder looks at
    `views` of each picture: as it is, mirrored, and crops.
    `teacher`, an ONNX network, goes on teaching a fine-tuned encoder while it learns from the captions.
    `data` may be shards or a URL, whose pictures are streamed.
    `data_name` and `terms` (of use, as their source states them) go into the card. Working files lie in `<out>.work`
    and are what `resume` goes on from. `quantize`: the encoder computes in 8-bit numbers if that costs nothing.
    Raises RecurError for data, encoders and checkpoints that cannot be used.
    """
    torch.manual_seed(seed)
    speaks = is_first()
    work = out.with_name(out.name + ".work")
    shards = shards_in(data, work, language)
    found = read_captions(data, images=images, language=language) if shards is None else shards.data
    for line in (*found.problems, *check_data(found, pictures=shards is None)) if speaks else ():
        warn(line)
    train, dev = make_split(found, "train"), make_split(found, "dev")
    if len(train) > 1 and not len(dev):
        found = hold_out(found)
        train, dev = make_split(found, "train"), make_split(found, "dev")
        if speaks:
            print(f"note: {data}: no dev split; {len(dev)} of its train pictures are held out as one", file=sys.stderr)
    if not len(train) or not len(dev):
        raise RecurError(f"{data}: {len(train)} train and {len(dev)} dev pictures; expected some of each")
    start = None if init is None else read_bundle(resolve(init), task="caption")
    vocabulary = (
        start.vocabulary()
        if start is not None
        else Vocabulary.build(
            {lang: (words for rows in train.tokens[lang] for words in rows) for lang in found.languages}, min_count
        )
    )
    if not epochs and not (cider and init):
        raise RecurError("--epochs 0 is for --cider alone, on a model that --init names; give it, or more epochs")
    eye = open_encoder(encoder, output_name=output_name)
    if finetune_encoder and eye.module is None:
        raise RecurError(f"{encoder}: a foreign ONNX graph cannot be trained; leave out --finetune-encoder")
    if teacher is not None and not finetune_encoder:
        raise RecurError("--teacher teaches an encoder that is fine-tuned; add --finetune-encoder, or leave it out")
    if shards is not None and images is not None:
        raise RecurError("--images is for captions in a file, and shards hold their pictures; leave it out")
    if teacher is not None and shards is not None:
        raise RecurError("--teacher keeps its answers about every picture, and shards are streamed; leave it out")
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        if eye.module is not None:
            eye.module.to(team.device)
        look = partial(
            _sources,
            eye,
            train,
            dev,
            work,
            moving=finetune_encoder,
            views=views,
            teacher=teacher,
            stop=stop,
            shards=shards,
        )
        looked = team.in_turn(look, stop)
        if looked is None or team.any(stop.requested):
            team.report(stop, work)
            return out
        train, dev, sources = looked
        pictures = batch * team.size
        network = CaptionNetwork(
            channels=eye.channels,
            vocabulary=len(vocabulary),
            cell=cell,
            embedding=embedding,
            hidden=hidden,
            layers=layers,
            attention=hidden // 4 if attention else 0,
            dropout=dropout,
        )
        network.normalise(sources["train"].features(np.arange(min(len(train), 512)), None))
        if start is not None:
            _load(network, start.weights, init)
        settings: dict[str, Any] = {
            "data": data_hash(found),
            "encoder": encoder,
            "finetune_encoder": finetune_encoder,
            **({} if finetune_encoder or shards is not None else {"views": views}),
            "teacher": None if teacher is None else teacher.name,
            "init": None if init is None else Path(init).name,
            "cell": cell,
            "attention": attention,
            "hidden": hidden,
            "layers": layers,
            "embedding": embedding,
            "dropout": dropout,
            "min_count": min_count,
            "epochs": epochs,
            "cider": cider,
            "batch": pictures,
            "seed": seed,
        }
        run = Run(network, vocabulary, train, dev, seed, pictures, work / "checkpoint", settings, [], team=team)
        if shards is not None:
            run.order = order_in(shards, train)
        taught = sources["train"]
        module = taught.encoder if isinstance(taught, TaughtFeatures) else eye.module if finetune_encoder else None
        phases = plan(epochs, cider, moving=finetune_encoder, warm=start is not None, taught=teacher is not None)
        if not train_phases(run, phases, sources, encoder=module, stop=stop, resume=resume):
            team.report(stop, work)
            return out
        if not team.leads:
            return out
    if eye.module is not None:
        eye.module.to("cpu")  # a frozen one is written and measured there, too
    _warn(run, sources["dev"])
    meta = {
        "task": "caption",
        "name": out.stem,
        "languages": list(vocabulary.languages),
        "cell": cell,
        "hidden": hidden,
        "layers": layers,
        "embedding": embedding,
        "attention": network.attention_units,
        "encoder": eye.describe(),
        "decode": {
            "beam": BEAMS[0],
            "length_penalty": 0.0,
            "no_repeat_ngram": NO_REPEAT,
            "max_length": {lang: MAX_WORDS.get(lang, DEFAULT_MAX_WORDS) for lang in vocabulary.languages},
        },
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "pictures": len(train),
            "log": run.log,
            "phases": run.reports,
        },
    }
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=vocabulary, encoder=eye.to_onnx(), card="")
    if quantize:
        quantize_encoder(out, train=train, dev=dev)
    finish_bundle(out, train=train, dev=dev, log=run.log)
    write_atomically(work / "training.html", render_caption_training(out.stem, run.log, run.watched).encode())
    return out


def plan(epochs: int, cider: int, *, moving: bool, warm: bool = False, taught: bool = False) -> list[Phase]:
    """The phases of a run. `moving`: the encoder is trained too, `taught`: by a teacher as well; `warm`: the network
    has been trained before.
    """
    frozen = 0 if warm and moving else min(epochs, max(1, math.ceil(epochs * FROZEN_SHARE))) if moving else epochs
    phases = [Phase("decoder", frozen, DECODER_RATE)] if frozen else []
    if moving and epochs > frozen:
        phases.append(Phase("joint", epochs - frozen, JOINT_RATE, TAUGHT_RATE if taught else ENCODER_RATE))
    if cider:
        phases.append(Phase("cider", cider, CIDER_RATE))
    return phases


def _sources(
    eye: FeatureEncoder,
    train: Split,
    dev: Split,
    work: Path,
    *,
    moving: bool,
    views: int,
    teacher: Path | None,
    stop: StopRequest,
    shards: Shards | None,
) -> tuple[Split, Split, dict[str, FeatureSource]]:
    """Features of both splits, and the splits without the pictures that cannot be read."""
    if shards is not None:
        train, dev = streamed(train, shards), streamed(dev, shards)
        return train, dev, streamed_sources(train, dev, eye, moving=moving)
    sources: dict[str, FeatureSource] = {}
    splits: dict[str, Split] = {}
    for name, split in (("train", train), ("dev", dev)):
        problems: list[str] = []
        if moving and teacher is not None and name == "train":
            assert eye.module is not None
            taught = taught_features(split, eye.module, teacher, work / "teacher", stop=stop)
            if taught is None:
                return train, dev, {}
            splits[name], sources[name] = taught
        elif moving:
            assert eye.module is not None
            splits[name], pixels, problems = read_pixels(split, eye.size)
            sources[name] = TrainedFeatures(pixels, eye.module)
        else:
            cached = cache_features(
                eye, split.paths, work / f"features-{name}", views=views if name == "train" else 1, stop=stop
            )
            if not cached.complete:
                return train, dev, {}
            problems = [str(problem) for problem in cached.problems]
            splits[name] = keep(split, cached.kept.tolist())
            kept_all = len(cached.kept) == len(split)
            sources[name] = FrozenFeatures(cached.features if kept_all else cached.features[cached.kept])
        for line in problems:
            warn(line)
    return splits["train"], splits["dev"], sources


def _load(network: CaptionNetwork, weights: Any, init: str | Path | None) -> None:
    try:
        network.load_engine_weights({name: torch.from_numpy(value) for name, value in weights.items()})
    except (KeyError, RuntimeError) as error:
        raise RecurError(
            f"{init}: its network has other sizes than the one to train ({error}); use the same options"
        ) from error


def _warn(run: Run, dev_source: FeatureSource) -> None:
    for lang in run.vocabulary.languages:
        captions = greedy_captions(run.network, dev_source, run.dev, run.vocabulary, lang)
        references = [[" ".join(words) for words in rows] for rows in run.dev.tokens[lang]]
        for line in check_captions([" ".join(words) for words in captions], references, run.vocabulary):
            print(f"warning: {lang}: {line}", file=sys.stderr)
