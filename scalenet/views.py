"""Random views of pictures for training without labels: crop, mirroring, colours, grey and blur as tensor operations.

SimCLR's augmentation (arXiv:2002.05709, appendix A), for whole batches on any device. Everything random is drawn
beforehand from a generator of the CPU, in numbers that do not depend on the side: the same state of the generator gives
candidates of different sides the same crops and colours, and nothing waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DRAWS = 13  # numbers in [0, 1) that one view of one picture takes


def two_views(images: Tensor, generator: torch.Generator, *, strength: float, crop: float) -> tuple[Tensor, Tensor]:
    """Two views of every picture of (n, 3, h, w), drawn from `generator` (a CPU's), in the pictures' memory format."""
    draws = torch.rand(2 * images.shape[0], DRAWS, generator=generator)
    x = distort(torch.cat((images, images)), draws, strength=strength, crop=crop)
    if images.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous(memory_format=torch.channels_last)
    first, second = x.chunk(2)
    return first, second


def distort(images: Tensor, draws: Tensor, *, strength: float, crop: float) -> Tensor:
    """One view of every picture: (n, 3, h, w) in [0, 1] and draws (n, DRAWS) -> the same shape and range.

    Crop (`crop` to 1 of the area, aspect 3/4 to 4/3) back to the side and mirroring; with probability 0.8 brightness,
    contrast, saturation and hue, in this order; with 0.2 greyscale; with 0.5 a Gaussian blur as wide as a tenth of the
    side. Crops that would not fit are cut to the picture instead of drawn again. What happens to a picture depends on
    its own draws alone, in relative units, but for the blur: its sigma is the paper's 0.1 to 2 pixels at any side.
    """
    draws = draws.to(images.device, non_blocking=True)
    area, aspect, across, down, mirrored, jitters, *colours, grey, blurs, sigma = draws.unbind(1)
    colours = [colour[:, None, None, None] for colour in colours]
    x = _crop(images, crop + (1 - crop) * area, (aspect * 2 - 1) * math.log(4 / 3), across, down, mirrored < 0.5)
    x = _jitter(x, colours, (jitters < 0.8)[:, None, None, None] * strength)
    x = torch.where((grey < 0.2)[:, None, None, None], _grey(x), x)
    return _blur(x, 0.1 + 1.9 * sigma, blurs < 0.5).clamp_(0, 1)  # sums of weights may round to a hair above 1


def _crop(x: Tensor, area: Tensor, log_aspect: Tensor, across: Tensor, down: Tensor, mirrored: Tensor) -> Tensor:
    width = (area * log_aspect.exp()).sqrt().clamp(max=1.0)
    height = (area / log_aspect.exp()).sqrt().clamp(max=1.0)
    left, top = across * (1 - width), down * (1 - height)

    def centres(pixels: int) -> Tensor:
        return (torch.arange(pixels, device=x.device, dtype=x.dtype) + 0.5) / pixels

    columns = centres(x.shape[3])
    columns = left[:, None] + width[:, None] * torch.where(mirrored[:, None], 1 - columns, columns)
    rows = top[:, None] + height[:, None] * centres(x.shape[2])
    shape = (len(x), *x.shape[2:])
    grid = torch.stack((columns[:, None].expand(shape), rows[:, :, None].expand(shape)), 3) * 2 - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jitter(x: Tensor, draws: list[Tensor], strength: Tensor) -> Tensor:
    """Factors of 1 +- 0.8 strength for brightness, contrast and saturation, a turn of +- 0.2 strength for the hue."""
    brightness, contrast, saturation = (1 + 0.8 * strength * (draw * 2 - 1) for draw in draws[:3])
    x = (x * brightness).clamp(0, 1)
    x = torch.lerp(_grey(x).mean((2, 3), keepdim=True), x, contrast).clamp(0, 1)
    x = torch.lerp(_grey(x), x, saturation).clamp(0, 1)
    return _turn(x, 0.2 * strength * (draws[3] * 2 - 1))


def _grey(x: Tensor) -> Tensor:
    """(n, 3, h, w) -> luma (n, 1, h, w), ITU-R BT.601."""
    red, green, blue = x.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """The hue of HSV shifted by parts of a whole turn, (n, 1, 1, 1)."""
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - least
    safe = chroma.clamp(min=1e-8)  # where grey, all hues are as good
    from_red, from_green, from_blue = (green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe
    hue = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue)) + 6 * turns
    offsets = 5 - 2 * torch.arange(3, device=x.device, dtype=x.dtype)[:, None, None]
    place = (hue + offsets).remainder(6)
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def _blur(x: Tensor, sigma: Tensor, blurred: Tensor) -> Tensor:
    """Gaussian blur with mirrored borders, sigma (n,) in pixels; a picture not `blurred` meets a kernel of one 1."""
    n, channels, height, width = x.shape
    radius = max(1, min(height, width) // 20)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, 1)
    kernel = torch.where(blurred[:, None], kernel, (offsets == 0).to(x.dtype))
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None]  # (n c, 1, 1, k)
    y = F.pad(x.reshape(1, n * channels, height, width), (radius,) * 4, mode="reflect")
    y = F.conv2d(F.conv2d(y, kernel, groups=n * channels), kernel.transpose(2, 3), groups=n * channels)
    return y.view(n, channels, height, width)
