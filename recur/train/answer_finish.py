"""What was measured of a model for stories, through the runtime and on stories that were held out; and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recur.bundle import read_bundle, update_bundle
from recur.data.stories import Story
from recur.metrics.answers import story_scores
from recur.predict.answer import Reader


def finish_answer(path: Path, held: Sequence[Story]) -> None:
    """Measure the bundle at `path` on held-out stories and write its card."""
    reader = Reader(read_bundle(path, task="answer"))
    results = {"held out": story_scores(held, reader.answers_to(held))}
    update_bundle(path, {"results": results}, card=answer_card({**reader.bundle.meta, "results": results}))


def answer_card(meta: Mapping[str, Any]) -> str:
    """The card of a bundle as Markdown, from its bundle.json."""
    training, held = meta["training"], meta["results"]["held out"]
    rows = [f"| {name} | {entry['questions']} | {entry['accuracy']:.3f} |" for name, entry in held["tasks"].items()]
    return f"""# {meta["name"]}

Answers questions about short stories, in a world of few words, with one word (or a few, parted by commas). It runs on a
plain CPU and holds nothing that can be executed.

## Use

```sh
echo "Mary took the football. Mary went to the garden." | recur answer --model {meta["name"]} "Where is the football?"
```

## Network

- Query-reduction network (Seo et al. 2017), {meta["layers"]} layers of {meta["hidden"]} units: each is a reading of the
  story, forwards and (but for the last) backwards, that sharpens the question; {meta["vocabulary_size"]} words,
  {len(meta["answers"])} answers.
- Of a sentence the first {meta["places"]} words are read, of a story the last {meta["sentences"]} sentences.
- One model for all tasks; it is not told which task a question is of.

## Data and terms

- Trained on: {training.get("data_name") or "stories of the person who trained it"}, {training["questions"]} questions.
- It was also taught which sentences an answer follows from, where the data say so.
- Terms: {training.get("terms") or "not stated"}.
- SHA-256 of the questions: `{training["data"]}`.

## Training

`{training["command"]}`, seed {training["seed"]}.

## Measured

On the {training["held_out"]} held-out questions by which the epoch was chosen: mean accuracy of the tasks
{held["mean"]:.4f}, {held["solved"]} of {len(held["tasks"])} tasks at 0.95 or more.

| task | questions | accuracy |
|---|---|---|
{chr(10).join(rows)}

## Limits

- It knows the words and the kinds of sentences of its training stories and nothing else. Any text gets an answer, with
  a probability that is right only for stories of that kind.
"""
