"""From detector to sentence, drawn from a real run: boxes, the features that are left when the head comes off, and the
recurrent network unrolled from START to END.

gy and gx are rows and columns of the feature map, F its channels, T the words of the caption.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from recur.explain.boxes import colour_of

INK, GREY, PAPER = (30, 30, 30), (150, 150, 150), (255, 255, 255)
SIDE = 112  # of a small picture
CELL, GAP = 124, 16  # width of a step of the unrolled network, and what lies between two
CHANNELS = 7  # of the feature map that are shown
# Black, violet, orange, pale yellow: grows in brightness all the way, so that it can be read in grey as well.
HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)


def heat(values: NDArray[np.float32], side: int) -> Image.Image:
    """A map [gy, gx] as a square of colours, from its least to its greatest value."""
    low, high = float(values.min()), float(values.max())
    places = (values.astype(np.float64) - low) / max(high - low, 1e-9) * (len(HEAT) - 1)
    below = np.minimum(places.astype(int), len(HEAT) - 2)
    part = (places - below)[..., None]
    pixels = HEAT[below] * (1 - part) + HEAT[below + 1] * part
    return Image.fromarray(pixels.round().astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)


def draw_features(pixels: NDArray[np.uint8], features: NDArray[np.float32]) -> Image.Image:
    """The picture as the network sees it, squashed to a square, the mean of its features [gy, gx, F], and the channels
    that differ most from place to place.
    """
    rows, columns, count = features.shape
    spread = features.reshape(-1, count).std(0)
    strongest = np.argsort(-spread, kind="stable")[:CHANNELS]
    panels = [
        ("what it sees", Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)),
        (f"mean of {count}", heat(features.mean(2), SIDE)),
        *((f"channel {channel}", heat(features[:, :, channel], SIDE)) for channel in strongest),
    ]
    font = _font(12)
    image = Image.new("RGB", (len(panels) * (SIDE + GAP) + GAP, SIDE + 3 * GAP + 20), PAPER)
    draw = ImageDraw.Draw(image)
    title = f"With the head off, the trunk gives {rows} x {columns} places with {count} numbers each: the features"
    draw.text((GAP, 6), title, fill=INK, font=font)
    for place, (name, panel) in enumerate(panels):
        x = GAP + place * (SIDE + GAP)
        image.paste(panel, (x, 28))
        draw.text((x, 28 + SIDE + 4), name, fill=INK, font=font)
    return image


def draw_unrolled(
    pixels: NDArray[np.uint8],
    words: Sequence[str],
    attention: Sequence[NDArray[np.float32] | None],
    labels: Sequence[str | None],
    *,
    cell: str,
    language: str,
    steps_a_row: int = 7,
) -> Image.Image:
    """The recurrent network from START to END: at each step what it reads, its cell, where it looks, what it says.

    `labels`: the class of the box that each word is tied to, None for none.
    """
    steps: list[tuple[str, str, NDArray[np.float32] | None, str | None]] = [("features", "", None, None)]
    said = [*words, "END"]
    read = [f"<{language}>", *words]
    looks = [*attention, None]
    ties = [*labels, None]
    steps += list(zip(read, said, looks, ties, strict=True))
    lines = -(-len(steps) // steps_a_row)
    tall = SIDE + 132
    image = Image.new("RGB", (steps_a_row * (CELL + GAP) + 2 * GAP, lines * tall), PAPER)
    draw = ImageDraw.Draw(image)
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    for number, (given, word, grid, label) in enumerate(steps):
        row, column = divmod(number, steps_a_row)
        x, y = GAP + column * (CELL + GAP), GAP + row * tall
        middle = x + CELL // 2
        if word:
            if label is not None:
                draw.rounded_rectangle((x, y - 3, x + CELL, y + 24), 6, fill=colour_of(label))
            _centred(draw, middle, y, word, INK, 17)
            _arrow(draw, (middle, y + 44), (middle, y + 26))
        draw.rounded_rectangle((x, y + 46, x + CELL, y + 78), 8, outline=INK, width=2, fill=(235, 241, 250))
        _centred(draw, middle, y + 53, cell, INK, 14)
        if number + 1 < len(steps):
            _arrow(draw, (x + CELL, y + 62), (x + CELL + GAP, y + 62))
        _arrow(draw, (middle, y + 98), (middle, y + 80))
        _centred(draw, middle, y + 99, "START: features" if number == 0 else given, GREY, 12)
        if number == 0:
            image.paste(small, (x + (CELL - SIDE) // 2, y + 116))
        elif grid is not None:
            image.paste(_looked(small, grid), (x + (CELL - SIDE) // 2, y + 116))
    return image


def _looked(picture: Image.Image, grid: NDArray[np.float32]) -> Image.Image:
    """The picture, bright where the attention [gy, gx] lies."""
    share = grid / max(float(grid.max()), 1e-9)
    mask = Image.fromarray((share * 255).round().astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(picture, Image.blend(picture, Image.new("RGB", picture.size, INK), 0.75), mask)


def _arrow(draw: ImageDraw.ImageDraw, start: tuple[int, int], stop: tuple[int, int]) -> None:
    draw.line((*start, *stop), fill=GREY, width=2)
    (x0, y0), (x, y) = start, stop
    back = 5
    if x0 == x:
        direction = 1 if y > y0 else -1
        head = [(x, y), (x - 4, y - direction * back), (x + 4, y - direction * back)]
    else:
        head = [(x, y), (x - back, y - 4), (x - back, y + 4)]
    draw.polygon(head, fill=GREY)


def _centred(
    draw: ImageDraw.ImageDraw, middle: int, y: int, text: str, colour: tuple[int, int, int], size: int
) -> None:
    shown = text if text.isascii() else _spelled(text)
    font = _font(size)
    draw.text((middle - draw.textlength(shown, font=font) / 2, y), shown, fill=colour, font=font)


def _spelled(text: str) -> str:
    """Letters that the font which comes with Pillow lacks, as their code points."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() else f"U+{ord(c):04X}" for c in plain if not unicodedata.combining(c))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
