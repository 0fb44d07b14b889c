"""What networks are trained for unless they bring something of their own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.errors import ScalenetError


class CrossEntropy:
    """Supervised classification: one view, softmax cross-entropy, judged by the share of pictures named rightly."""

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The pictures themselves."""
        return (images,)

    def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Mean over the batch; `targets` are class indices (n,) or distributions (n, classes)."""
        return F.cross_entropy(model(views[0]), targets)

    @torch.no_grad()  # inference_mode would poison whatever a model keeps between calls for the next training step
    def evaluate(
        self, model: nn.Module, fit: Iterable[tuple[Tensor, Tensor]], held: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, float]:
        """The keys top1 and, with more than five classes, top5: on all of `held`, in [0, 1]. `fit` is not read."""
        counts: Tensor | None = None  # (first guess right, one of five right), kept on the device until the end
        pictures, classes = 0, 0
        for images, labels in held:
            logits = model(images)
            classes, pictures = logits.shape[1], pictures + len(labels)
            right = logits.topk(min(5, classes)).indices == labels[:, None]
            batch = torch.stack((right[:, 0].sum(), right.sum()))
            counts = batch if counts is None else counts + batch
        if counts is None:
            raise ScalenetError("The part to judge on holds no pictures; it must hold at least one.")
        top1, top5 = (count / pictures for count in counts.tolist())
        return {"top1": top1, "top5": top5} if classes > 5 else {"top1": top1}
