"""The contract a plugin fulfils: spec -> spec (pure arithmetic) -> module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from scalenet.errors import unknown
from scalenet.rounding import FINE, PAPER, Rounding

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["FINE", "PAPER", "Architecture", "Objective", "Rounding", "Scale", "Size", "Spec", "Variant"]


class Spec(Protocol):
    """What the engine asks of a plugin's own frozen dataclass: plain data, and the input side in pixels."""

    @property
    def resolution(self) -> int:
        """Input side in pixels."""
        ...


S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Scale:
    """Multipliers on a spec; 1.0 leaves it, below 1 shrinks."""

    depth: float = 1.0  # blocks
    width: float = 1.0  # channels
    resolution: float = 1.0  # input side


@dataclass(frozen=True)
class Size:
    """How big a spec is along the three knobs, as built."""

    depth: int  # repeatable blocks, all stages together
    width: float  # channels: the mean over the repeatable blocks' outputs
    resolution: int  # input side in pixels


@dataclass(frozen=True)
class Variant(Generic[S]):
    """A published size: its spec, its class count, where its numbers come from and what its network is known to cost.

    `params` and `flops` (multiply-adds) are published or measured on a public implementation, with `num_classes`
    classes; None where nobody says. Public counters see neither FFT nor what `flop_counts` declares, so `flops` is
    without these. `scalenet check` holds both against the network that is built.
    """

    spec: S
    num_classes: int
    source: str
    params: int | None = None
    flops: int | None = None


@dataclass(frozen=True)
class Part:
    """A network inside another one as a network of its own: who builds it, from which spec, with which weights.

    The weights are a state dict; that of a part without a `classifier` lacks the names that begin with "classifier.".
    """

    plugin: str
    spec: Any
    weights: Mapping[str, Tensor]


class Objective(Protocol):
    """What a network is trained for and judged by.

    `images` are float in [0, 1], n c h w, at the spec's side, already cropped and flipped by the recipe; the loop
    normalises every view. `targets` are class indices (n,), or distributions (n, classes) where the recipe smooths or
    mixes.
    """

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What the model is shown of a batch."""
        ...

    def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar."""
        ...

    def evaluate(
        self, model: nn.Module, fit: Iterable[tuple[Tensor, Tensor]], held: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, float]:
        """Metrics on `held` (always with "top1" in [0, 1]); both are batches of normalised images and class indices."""
        ...


class Architecture(ABC, Generic[S]):
    """A family of networks that can be scaled. S is the plugin's own frozen dataclass, with `resolution` in pixels."""

    name: ClassVar[str]  # what follows --plugin
    paper: ClassVar[str]  # URL
    variants: Mapping[str, Variant[S]]  # the published sizes by the paper's own names, and "micro"
    baseline: ClassVar[str]  # the published variant that phi = 0 means
    # Multiply-adds of modules whose work their operators cannot show: module type -> f(module, inputs, output).
    flop_counts: ClassVar[Mapping[type, Callable[..., int]]] = {}
    # Parameters that do not learn from the objective's loss: pattern of their names (fnmatch) -> why that is right.
    unlearned: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def scale(self, spec: S, by: Scale, rounding: Rounding = FINE) -> S:
        """The spec times the three multipliers, with divisibility repaired; `Scale()` returns it unchanged."""

    @abstractmethod
    def size(self, spec: S) -> Size:
        """The spec's blocks, channels and pixels, for tables and for stepping through the reachable depths."""

    @abstractmethod
    def build(self, spec: S, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        """The module: (n, in_channels, h, w) -> logits (n, num_classes). `drop_path` is the last block's rate.

        Its last linear map, from features to logits, is its attribute `classifier`: what another network that wants
        the features, or fine-tuning for other classes, replaces.
        """

    def resample(self, weights: Mapping[str, Tensor], old: S, new: S) -> Mapping[str, Tensor]:
        """The state dict of `old`'s network for that of `new`, the same spec at another resolution.

        As it is, unless overridden: tables of positions and weights that mix tokens have to be interpolated.
        """
        return weights

    def encoder(self, spec: S, weights: Mapping[str, Tensor]) -> Part | None:
        """What a supervised run may start from where `spec` is that of a pretraining; None where it is not one."""
        return None

    def variant(self, name: str) -> Variant[S]:
        """The variant that `--variant name` means.

        Raises:
            ScalenetError: there is none of that name.
        """
        if name not in self.variants:
            raise unknown(f"variant of {self.name}", name, self.variants, listed_as="Its variants")
        return self.variants[name]

    def objective(self, spec: S) -> Objective:
        """Supervised cross-entropy unless overridden."""
        from scalenet.objectives import CrossEntropy

        return CrossEntropy()

    def spec_type(self) -> type[Any]:
        """The plugin's dataclass, for reading specs back from files."""
        return type(self.variants[self.baseline].spec)
