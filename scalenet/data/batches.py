"""Batches for training and judging, as tensor operations on the shared cache.

Training: every picture is resized to round(1.15 * side), a window of `side` is cut at a random place, and half of the
pictures are mirrored where the data allow it. Judging: the same resize, the window in the middle, nothing random.
Pictures come as float in [0, 1], n c h w; `normalise` is a separate step. RandAugment and mixup belong to the recipe.

Order, places and mirrorings depend on (seed, epoch) alone, and places are drawn in relative units, so candidates of
different sides see the same pictures in the same order, cut at the same relative place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from scalenet.data.cache import grown, open_part
from scalenet.data.values import Part, Prepared
from scalenet.errors import ScalenetError

# Per-channel mean and standard deviation of ImageNet's training pictures (RGB in [0, 1]), as in torchvision's models.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Bytes of resized pictures that one trial keeps on its accelerator; beyond, and on a CPU, every batch is resized anew,
# which gives the same pictures: 3 to 30 microseconds each, and no trial has a copy of the data.
KEPT = {"cuda": 2 << 30, "mps": 256 << 20}
CHUNK = 512  # pictures resized at a time
CUT = 1 << 20  # bytes of windows cut at a time: for small batches, whose steps are short, several together


def normalise(images: Tensor) -> Tensor:
    """Pictures in [0, 1], (n, 3, h, w), centred and scaled per channel by MEAN and STD."""
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        # Whole rows of pixels at a time: on a CPU six times as fast as three channels at a time.
        rows = images.permute(0, 2, 3, 1).flatten(2)
        mean, std = _statistics(images.shape[3], images.device, images.dtype)
        return (rows - mean).div_(std).view(*rows.shape[:2], -1, len(MEAN)).permute(0, 3, 1, 2)
    mean, std = _statistics(1, images.device, images.dtype)
    return (images - mean[:, None, None]).div_(std[:, None, None])


@lru_cache(maxsize=32)  # kept: sending them to a device is a moment in which the host waits
def _statistics(pixels: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """MEAN and STD, once for each of so many pixels, one after the other."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device).repeat(pixels) for values in (MEAN, STD))
    return mean, std


class Batches:
    """Training batches of one part; a function of (seed, epoch) and of nothing that happened before.

    `side` is the side of the pictures handed out. `flip` mirrors half of them; it is ignored where the data forbid
    it (`prepared.flip` is False: digits). `channels_last` sets the memory format of the images. On an accelerator the
    pictures resized for this side are kept where they fit, and so are an epoch's draws: no step waits for the host.

    Raises ScalenetError for a batch size below 2 or a part with fewer than two pictures.
    """

    def __init__(
        self,
        prepared: Prepared,
        part: Part = "fit",
        *,
        side: int,
        batch_size: int,
        seed: int,
        flip: bool = True,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        if batch_size < 2:
            raise ScalenetError(f"batch_size is {batch_size}; training takes 2 pictures or more at a time.")
        self._device = torch.device(device)
        self._resized = _Resized(prepared, part, grown(side), self._device)
        if len(self._resized) < 2:
            raise ScalenetError(f"The part {part!r} of {prepared.name} holds fewer than two pictures.")
        self._side = side
        self._batch_size = batch_size
        self._seed = seed
        self._flip = flip and prepared.flip
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        """Steps per epoch. The last batch may be short; one of a single picture (no batch statistics) is left out."""
        whole, rest = divmod(len(self._resized), self._batch_size)
        return whole + (rest > 1)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (n, 3, side, side) float in [0, 1] and labels (n,) int64, both on the device."""
        count = len(self._resized)
        random = np.random.default_rng((self._seed, epoch))
        order = torch.from_numpy(random.permutation(count)).to(self._resized.home)
        places = random.random((count, 2))
        mirrored = torch.from_numpy((random.random(count) < 0.5) & self._flip).to(self._device)
        room = self._resized.side - self._side
        corners = torch.from_numpy((places * (room + 1)).astype(np.int64)).to(self._device)
        size = self._batch_size
        together = size * max(1, CUT // (size * max(self._side, self._resized.read) ** 2 * 3))
        for start in range(0, min(count, len(self) * size), together):
            chosen = slice(start, min(start + together, len(self) * size))
            windows, labels = self._resized.windows(order[chosen], corners[chosen], mirrored[chosen], self._side)
            for images, own in zip(torch.split(windows, size), torch.split(labels, size), strict=True):
                yield _unit(images, self._format), own


class EvaluationBatches:
    """What `evaluation_batches` returns: iterate it as often as you like; the resizing is done once."""

    def __init__(self, resized: _Resized, side: int, batch_size: int, channels_last: bool) -> None:
        self._resized = resized
        self._side = side
        self._batch_size = batch_size
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        return (len(self._resized) + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        corner = (self._resized.side - self._side) // 2
        for start in range(0, len(self._resized), self._batch_size):
            rows = torch.arange(start, min(start + self._batch_size, len(self._resized)), device=self._resized.home)
            corners = torch.full((len(rows), 2), corner, device=self._resized.device)
            mirrored = torch.zeros(len(rows), dtype=torch.bool, device=self._resized.device)
            images, labels = self._resized.windows(rows, corners, mirrored, self._side)
            yield _unit(images, self._format), labels


def evaluation_batches(
    prepared: Prepared,
    part: Part,
    *,
    side: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> EvaluationBatches:
    """All pictures of a part in the cache's order: centre window of `side` from round(1.15 * side), in [0, 1].

    Make it once per trial and iterate it every epoch: the resized pictures are kept where they fit.
    """
    resized = _Resized(prepared, part, grown(side), torch.device(device))
    return EvaluationBatches(resized, side, batch_size, channels_last)


class _Resized:
    """One part at one side, uint8 on the device where it fits, else made when it is asked for."""

    def __init__(self, prepared: Prepared, part: Part, side: int, device: torch.device) -> None:
        self._pictures, labels = open_part(prepared, part)
        self._labels = torch.from_numpy(labels).to(device)
        self.device = device
        self.side = side
        fits = len(labels) * 3 * side * side <= KEPT.get(device.type, 0)
        self._kept = self._all() if fits else None
        self.read = side if fits else self._pictures.shape[1]  # side of what a window is made from
        self.home = device if fits else torch.device("cpu")  # of the pictures: where `rows` are looked up

    def __len__(self) -> int:
        return len(self._pictures)

    def windows(self, rows: Tensor, corners: Tensor, mirrored: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The windows of these pictures whose upper left corners are (y, x), some of them mirrored, and labels.

        uint8, (n, 3, side, side), channels last in memory, as files and the resizing have them.
        """
        labels = self._labels[rows.to(self.device)]
        if self._kept is not None:
            return picked(self._kept, rows, corners, mirrored, side), labels
        on_cpu = self.device.type == "cpu"
        if on_cpu and self._pictures.shape[1] == self.side:
            return cut(self._pictures, rows, corners, mirrored, side), labels
        source, every = self._resize(self._pictures[rows.numpy()]), torch.arange(len(rows), device=self.device)
        if on_cpu:
            return cut(source.numpy(), every, corners, mirrored, side), labels
        return picked(source, every, corners, mirrored, side), labels

    def _all(self) -> Tensor:
        kept = torch.empty((len(self), self.side, self.side, 3), dtype=torch.uint8, device=self.device)
        for start in range(0, len(self), CHUNK):
            kept[start : start + CHUNK] = self._resize(self._pictures[start : start + CHUNK])
        return kept

    def _resize(self, pictures: NDArray[np.uint8]) -> Tensor:
        """(n, h, w, 3) in memory -> (n, side, side, 3) uint8 on the device, bilinear, antialiased."""
        # A copy: torch warns of arrays it may not write to, and the cache is mapped read-only.
        images = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
        if images.shape[2] != self.side:
            if self.device.type == "cuda":  # has no uint8 kernel
                images = images.to(self.device).float()
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
            if images.is_floating_point():
                images = images.round_().clamp_(0, 255).to(torch.uint8)
        return images.permute(0, 2, 3, 1).to(self.device)


def picked(source: Tensor, rows: Tensor, corners: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """The windows of `windows` out of `source` (pictures, h, w, 3), without a word from the host to the device."""
    y, x = corners.unbind(1)
    # Every possible window as a view, (n, y, x, side, side, 3); picking copies only those asked for.
    views = source.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
    images = views[rows, y, x].permute(0, 3, 1, 2)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cut(source: NDArray[np.uint8], rows: Tensor, corners: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """The same on a CPU, where a copy per picture is three times as fast."""
    pixels = np.asarray(source).view("V3")[..., 0]
    windows = np.empty((len(rows), side, side), "V3")
    wanted = zip(rows.tolist(), corners.tolist(), mirrored.tolist(), strict=True)
    for window, (row, (y, x), mirror) in zip(windows, wanted, strict=True):
        found = pixels[row, y : y + side, x : x + side]
        window[...] = found[:, ::-1] if mirror else found
    return torch.from_numpy(windows[..., None].view(np.uint8)).permute(0, 3, 1, 2)


def _unit(images: Tensor, memory_format: torch.memory_format) -> Tensor:
    return images.to(torch.float32, memory_format=memory_format).div_(255)
