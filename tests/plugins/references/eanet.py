"""EAMLP as its formulas say, window by window and head by head: slow, and nothing in it is shared with the plugin."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding
TOKEN_DIM, TOKEN_SLOTS, SLOTS = 64, 128, 64


def reference(spec: Any, num_classes: int) -> nn.Module:
    return Network(spec.resolution, spec.dim, spec.depth, spec.num_heads, spec.mlp_ratio, num_classes)


class Network(nn.Module):
    def __init__(self, side: int, dim: int, depth: int, heads: int, ratio: int, num_classes: int) -> None:
        super().__init__()
        for kernel, stride, padding in SPLITS:
            side = len(starts(side, kernel, stride, padding))
        self.token = nn.Parameter(torch.zeros(dim))
        self.table = nn.Parameter(table(side * side + 1, dim), requires_grad=False)
        self.first = TokenLayer(3 * 7 * 7)
        self.second = TokenLayer(TOKEN_DIM * 3 * 3)
        self.project = nn.Linear(TOKEN_DIM * 3 * 3, dim)
        self.layers = nn.ModuleList(Layer(dim, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.one(image) for image in images])

    def one(self, image: Tensor) -> Tensor:
        image = as_map(self.first(windows(image, *SPLITS[0])))
        image = as_map(self.second(windows(image, *SPLITS[1])))
        tokens = self.project(windows(image, *SPLITS[2]))
        tokens = torch.cat([self.token[None], tokens]) + self.table
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens)[0])


def starts(side: int, kernel: int, stride: int, padding: int) -> list[int]:
    """Where the windows begin along a side; one more where the last pixel would be in none."""
    begin = [-padding]
    while begin[-1] + stride + kernel <= side + padding or begin[-1] + kernel < side:
        begin.append(begin[-1] + stride)
    return begin


def windows(image: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(c, h, w) -> (windows, c * kernel * kernel): channel by channel, each row by row; zero outside."""
    _, height, width = image.shape
    wide = kernel + padding  # zeros enough on every side
    padded = nn.functional.pad(image, (wide, wide, wide, wide))
    return torch.stack(
        [
            padded[:, wide + y : wide + y + kernel, wide + x : wide + x + kernel].flatten()
            for y in starts(height, kernel, stride, padding)
            for x in starts(width, kernel, stride, padding)
        ]
    )


def as_map(tokens: Tensor) -> Tensor:
    side = math.isqrt(len(tokens))
    return torch.stack([tokens[y * side : (y + 1) * side] for y in range(side)]).permute(2, 0, 1)


def table(positions: int, dim: int) -> Tensor:
    rows = []
    for position in range(positions):
        angles = [position / 10000 ** (2 * (i // 2) / dim) for i in range(dim)]
        rows.append([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])
    return torch.tensor(rows)


def double_normalisation(scores: Tensor) -> Tensor:
    """(tokens, slots): softmax down every column (over the tokens), then every row divided by its sum."""
    columns = [scores[:, s].exp() / scores[:, s].exp().sum() for s in range(scores.shape[1])]
    softmaxed = torch.stack(columns, dim=1)
    return torch.stack([row / (1e-9 + row.abs().sum()) for row in softmaxed])


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class TokenLayer(nn.Module):
    """One head; query and M_v with biases, M_k without; the skip starts from the query; MLP ratio 1."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_dim)
        self.query = nn.Linear(in_dim, TOKEN_DIM)
        self.memory_k = nn.Linear(TOKEN_DIM, TOKEN_SLOTS, bias=False)
        self.memory_v = nn.Linear(TOKEN_SLOTS, TOKEN_DIM)
        self.project = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.norm2 = nn.LayerNorm(TOKEN_DIM)
        self.wide = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.narrow = nn.Linear(TOKEN_DIM, TOKEN_DIM)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.norm1(x))
        x = query + self.project(self.memory_v(double_normalisation(self.memory_k(query))))
        return x + self.narrow(gelu(self.wide(self.norm2(x))))


class Layer(nn.Module):
    """4 D channels in 4 h heads of D / h, one memory for all of them."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads, self.size = 4 * heads, dim // heads
        self.norm1 = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, 4 * dim)
        self.memory_k = nn.Linear(self.size, SLOTS)
        self.memory_v = nn.Linear(SLOTS, self.size)
        self.project = nn.Linear(4 * dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.wide = nn.Linear(dim, ratio * dim)
        self.narrow = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(self.norm1(x))
        heads = []
        for h in range(self.heads):
            part = query[:, h * self.size : (h + 1) * self.size]
            heads.append(self.memory_v(double_normalisation(self.memory_k(part))))
        x = x + self.project(torch.cat(heads, dim=1))
        return x + self.narrow(gelu(self.wide(self.norm2(x))))
