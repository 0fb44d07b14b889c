"""NT-Xent as the paper writes it (arXiv:2002.05709, equation 1 and algorithm 1): a double loop over 2N embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """The mean of l(i, j) over both directions of every positive pair."""
    z = [
        row.detach().double() for pair in zip(first, second, strict=True) for row in pair
    ]  # z_2k-1 and z_2k are a pair
    cosine = [[float(torch.dot(a, b) / (a.norm() * b.norm())) for b in z] for a in z]
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(cosine[i][k] / temperature) for k in range(len(z)) if k != i)
        losses.append(-math.log(math.exp(cosine[i][j] / temperature) / others))
    return sum(losses) / len(losses)
