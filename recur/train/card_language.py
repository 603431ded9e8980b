"""CARD.md of a language model, from bundle.json and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recur.train.card import CELLS, UNKNOWN

LIMITS = """\
It has read one kind of text and nothing else: what it writes has the look of that text and no meaning that could be
relied on. Parts of what it has read can come back word for word. Characters it has never seen are read as unknown and
never written."""


def render_language_card(meta: Mapping[str, Any]) -> str:
    """The card as Markdown; what `meta` does not hold is said to be unknown."""
    name = str(meta.get("name") or "language model")
    training: Mapping[str, Any] = meta.get("training") or {}
    parts = [
        f"# {name}",
        _summary(meta),
        "## Use",
        f'```sh\nrecur generate --model {name} --prompt "The "\n'
        f"recur evaluate language --model {name} --data FILE\n```",
        "## Network",
        _network(meta),
        "## Data and terms",
        _data(training),
        "## Training",
        _training(training),
        "## Measured",
        _measured(meta),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _summary(meta: Mapping[str, Any]) -> str:
    cell = CELLS.get(str(meta.get("cell")), "recurrent network")
    article = "An" if cell == "LSTM" else "A"
    return (
        "Writes text one character after another, in the manner of the text that it has read. "
        f"{article} {cell} whose state is all it knows of what came before. Made on {meta.get('created', UNKNOWN)} "
        f"with recur {meta.get('version', UNKNOWN)}. It runs on a plain CPU and holds nothing that can be executed."
    )


def _network(meta: Mapping[str, Any]) -> str:
    return (
        f"{CELLS.get(str(meta.get('cell')), UNKNOWN)}, {meta.get('layers', UNKNOWN)} x {meta.get('hidden', UNKNOWN)} "
        f"hidden units, {meta.get('embedding', UNKNOWN)} numbers a character, "
        f"{int(meta.get('vocabulary_size', 1)) - 1} characters and one for all others. "
        "Weights are stored in 8 bits, one scale a row, and computed with in 32 bits."
    )


def _data(training: Mapping[str, Any]) -> str:
    lines = [
        f"- Trained on: {training.get('data_name') or 'texts of the person who trained it'}, "
        f"{training.get('characters', UNKNOWN)} characters.",
        f"- SHA-256 of that text: `{training.get('data', UNKNOWN)}`; of its dev split: "
        f"`{training.get('dev', UNKNOWN)}`.",
        f"- Terms: {training.get('terms') or 'not stated when it was trained; those of the text apply.'}",
    ]
    if training.get("init"):
        lines.append(f"- It started from the weights of `{training['init']}`.")
    return "\n".join(lines)


def _training(training: Mapping[str, Any]) -> str:
    command = training.get("command")
    rows = "\n".join(f"| {row['epoch']} | {row['loss']:.4f} | {row['dev']:.4f} |" for row in training.get("log") or ())
    return (
        (f"```sh\n{command}\n```" if command else "The command was not recorded.")
        + f"\n\nSeed {training.get('seed', UNKNOWN)}. Nats a character, dev before the weights were stored in 8 bits:"
        + f"\n\n| epoch | training | dev |\n|---|---|---|\n{rows}"
    )


def _measured(meta: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {split} | {found['nats']:.4f} | {found['bits']:.4f} | {found['perplexity']:.3f} | {found['characters']} | "
        f"{found['unknown']} |"
        for split, found in (meta.get("results") or {}).items()
    )
    return (
        "The bundle as it is, read as one text from its first character to its last; dev is the end of the text, never "
        "trained on, though the best epoch was chosen on it.\n\n"
        f"| split | nats a character | bits | perplexity | characters | unknown |\n|---|---|---|---|---|---|\n{rows}"
    )
