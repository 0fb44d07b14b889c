"""The Perceiver as its paper describes it, slowly: places pixel by pixel, heads one by one, attention written out.

arXiv:2103.03206, sections 3.1, 3.2 and 4.1: every round is a cross-attend and a stack of self-attends, all rounds share
their weights but for the first cross-attend, and the classifier reads the mean of the latents.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SMALL = {"num_latents": 12, "dim": 32, "num_heads": 4, "rounds": 3, "self_attends": 2}  # of a spec, for a quick look


def features(side: int, bands: int) -> Tensor:
    """(side * side, 2 + 4 bands): y and x in [-1, 1], their sines, their cosines; up to Nyquist's frequency."""
    places = [-1 + 2 * i / (side - 1) for i in range(side)]
    frequencies = [1 + (side / 2 - 1) * k / (bands - 1) for k in range(bands)]
    rows = []
    for y in places:
        for x in places:
            angles = [math.pi * f * place for place in (y, x) for f in frequencies]
            rows.append([y, x, *(math.sin(a) for a in angles), *(math.cos(a) for a in angles)])
    return torch.tensor(rows)


class Attend(nn.Module):
    """x + attention(LN(x), LN(source)), then x + MLP(LN(x)); without a source of its own, x attends to itself."""

    def __init__(self, dim: int, source: int | None, heads: int) -> None:
        super().__init__()
        width = source or dim
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(source) if source else None
        self.query, self.key, self.value = nn.Linear(dim, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        a = self.norm(x)
        b = a if source is None else self.source_norm(source)
        heads = []
        for query, key, value in zip(
            self.query(a).chunk(self.heads, -1),
            self.key(b).chunk(self.heads, -1),
            self.value(b).chunk(self.heads, -1),
            strict=True,
        ):
            weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]), -1)
            heads.append(weights @ value)
        x = x + self.out(torch.cat(heads, -1))
        return x + self.narrow(nn.functional.gelu(self.wide(self.mlp_norm(x))))


class Reference(nn.Module):
    def __init__(self, spec: Any, num_classes: int) -> None:
        super().__init__()
        pixel = 3 + 2 + 4 * spec.bands
        self.spec = spec
        self.register_buffer("features", features(spec.resolution, spec.bands), persistent=False)
        self.latents = nn.Parameter(0.02 * torch.randn(spec.num_latents, spec.dim))
        self.first = Attend(spec.dim, pixel, 1)
        if spec.repeat_cross and spec.rounds > 1:
            self.again = Attend(spec.dim, pixel, 1)
        self.blocks = nn.ModuleList(Attend(spec.dim, None, spec.num_heads) for _ in range(spec.self_attends))
        self.classifier = nn.Linear(spec.dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        n = len(images)
        colours = images.permute(0, 2, 3, 1).reshape(n, -1, 3)
        pixels = torch.cat([colours, self.features.repeat(n, 1, 1)], -1)
        latents = self.first(self.latents.repeat(n, 1, 1), pixels)
        for i in range(self.spec.rounds):
            if i > 0 and self.spec.repeat_cross:
                latents = self.again(latents, pixels)
            for block in self.blocks:
                latents = block(latents)
        return self.classifier(latents.mean(1))


def reference(spec: Any, num_classes: int) -> nn.Module:
    """The slow Perceiver of a spec with Fourier features of raw pixels and no decoder (the rest is Perceiver IO)."""
    return Reference(spec, num_classes)


def move(source: nn.Module, target: nn.Module) -> None:
    """The reference's weights into ours, whose queries, keys and values are fused."""
    theirs = source.state_dict()
    ours = {}
    for name in target.state_dict():
        if ".attention.qkv." in name:
            head, _, tail = name.partition("attention.qkv.")
            ours[name] = torch.cat([theirs[f"{head}{part}.{tail}"] for part in ("query", "key", "value")])
        elif ".key_value." in name:
            head, _, tail = name.partition("key_value.")
            ours[name] = torch.cat([theirs[f"{head}{part}.{tail}"] for part in ("key", "value")])
        else:
            ours[name] = theirs[
                name.replace("attention.out", "out").replace("mlp.0", "wide").replace("mlp.2", "narrow")
            ]
    target.load_state_dict(ours)
