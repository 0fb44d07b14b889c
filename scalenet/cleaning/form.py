"""What pictures are converted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scalenet.errors import ScalenetError

Format = Literal["jpeg", "png", "webp"]
Mode = Literal["RGB", "L"]
QUALITY = 92  # of JPEG and WebP unless one is named


@dataclass(frozen=True)
class Form:
    """Format, colours and size.

    `side` is what the shorter side of a larger picture is reduced to, in pixels; smaller ones keep their size.
    """

    format: Format = "jpeg"
    mode: Mode = "RGB"
    side: int | None = None
    quality: int | None = None  # of JPEG and WebP, 1 to 100

    def __post_init__(self) -> None:
        if self.side is not None and self.side < 1:
            raise ScalenetError(f"side is {self.side}; it must be a number of pixels, 1 or more.")
        if self.quality is not None and self.format == "png":
            raise ScalenetError(f"quality is {self.quality}; PNG keeps every pixel and has none.")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ScalenetError(f"quality is {self.quality}; it must be from 1 to 100.")

    @property
    def ending(self) -> str:
        """Of the files' names."""
        return ".jpg" if self.format == "jpeg" else f".{self.format}"
