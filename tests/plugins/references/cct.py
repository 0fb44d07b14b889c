"""CCT as its formulas say, head by head and token by token: slow, and nothing in it is shared with the plugin."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def reference(spec: Any, num_classes: int) -> nn.Module:
    return Network(spec, num_classes)


class Network(nn.Module):
    def __init__(self, spec: Any, num_classes: int) -> None:
        super().__init__()
        stride = {3: 1, 7: 2}[spec.kernel]
        convolutions = []
        for i in range(spec.convolutions):
            before = 3 if i == 0 else 64
            after = spec.dim if i == spec.convolutions - 1 else 64
            convolutions.append(nn.Conv2d(before, after, spec.kernel, stride, spec.kernel // 2, bias=False))
        side = self.side_after(spec.resolution, spec.kernel, stride, spec.convolutions)
        self.positions = nn.Parameter(torch.zeros(side * side, spec.dim))
        self.convolutions = nn.ModuleList(convolutions)
        self.layers = nn.ModuleList(Layer(spec.dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.dim)
        self.importance = nn.Linear(spec.dim, 1)
        self.head = nn.Linear(spec.dim, num_classes)

    @staticmethod
    def side_after(side: int, kernel: int, stride: int, convolutions: int) -> int:
        for _ in range(convolutions):
            side = (side + 2 * (kernel // 2) - kernel) // stride + 1
            side = (side + 2 - 3) // 2 + 1
        return side

    def forward(self, images: Tensor) -> Tensor:
        for convolution in self.convolutions:
            images = nn.functional.max_pool2d(convolution(images).clamp(min=0), kernel_size=3, stride=2, padding=1)
        logits = []
        for image in images:
            _, height, width = image.shape
            tokens = torch.stack([image[:, y, x] for y in range(height) for x in range(width)])
            tokens = tokens + self.positions
            for layer in self.layers:
                tokens = layer(tokens)
            tokens = self.norm(tokens)
            shares = self.importance(tokens)[:, 0].exp()
            shares = shares / shares.sum()
            pooled = sum(share * token for share, token in zip(shares, tokens, strict=True))
            logits.append(self.head(pooled))
        return torch.stack(logits)


class Layer(nn.Module):
    """s = x + attn(LN1 x); s = LN2(s); out = s + MLP(s): the residual carries the normalised stream."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.wide = nn.Linear(dim, ratio * dim)
        self.narrow = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        s = x + self.attention(self.norm1(x))
        s = self.norm2(s)
        hidden = self.wide(s)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))  # GELU
        return s + self.narrow(hidden)

    def attention(self, x: Tensor) -> Tensor:
        _, dim = x.shape
        query, key, value = (x @ weight.T for weight in self.qkv.weight.chunk(3))
        size = dim // self.heads
        outputs = []
        for h in range(self.heads):
            part = slice(h * size, (h + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            outputs.append(scores.softmax(dim=1) @ value[:, part])
        return self.project(torch.cat(outputs, dim=1))
