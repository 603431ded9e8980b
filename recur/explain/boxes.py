"""Boxes and names drawn on pictures."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Colours that stay apart for people who see red and green alike (Okabe & Ito 2008).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def colour_of(label: str) -> tuple[int, int, int]:
    """The same colour for the same label, always."""
    return COLOURS[zlib.crc32(label.encode("utf-8")) % len(COLOURS)]


def draw_boxes(
    pixels: NDArray[np.uint8], objects: Sequence[tuple[str, float, Sequence[float]]], width: int, height: int
) -> Image.Image:
    """A picture [Y, X, 3] with (label, score, box) drawn on it; boxes in pixels of its full `width` and `height`."""
    image = Image.fromarray(pixels).convert("RGB")
    across, down = image.width / width, image.height / height
    line = max(2, round(min(image.size) / 160))
    font = ImageFont.load_default(max(11, round(min(image.size) / 26)))
    draw = ImageDraw.Draw(image)
    for label, score, (x0, y0, x1, y1) in reversed(objects):  # the best on top
        colour = colour_of(label)
        corner = (x0 * across, y0 * down, max(x1 * across - 1, x0 * across), max(y1 * down - 1, y0 * down))
        draw.rectangle(corner, outline=colour, width=line)
        text = f"{label} {score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = min(max(corner[0], 0), max(image.width - (right - left) - 4, 0))
        y = corner[1] - (bottom - top) - 6
        y = y if y >= 0 else corner[1] + line
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 6), fill=colour)
        draw.text((x + 2 - left, y + 3 - top), text, fill=(0, 0, 0), font=font)
    return image


def png_bytes(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
