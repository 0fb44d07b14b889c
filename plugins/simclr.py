"""SimCLR (Chen et al., 2020, arXiv:2002.05709): an encoder trained to tell pictures apart, judged by its features."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet import plugins
from scalenet.architecture import FINE, PAPER, Architecture, Objective, Part, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, conv_bn, drop_path_rates, init_convolutions
from scalenet.plain import from_plain, to_plain
from scalenet.probe import judge_features
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple
from scalenet.views import two_views


@dataclass(frozen=True)
class Stage:
    """`blocks` residual blocks of `channels`, whose inner convolution has `middle`; the first has the stride."""

    stride: int
    middle: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class ResNetSpec:
    """The paper's encoder (arXiv:1512.03385), its stride on the 3x3 convolution."""

    stem: int
    stages: tuple[Stage, ...]
    block: Literal["basic", "bottleneck"] = "bottleneck"
    small: bool = False  # appendix B.9, for CIFAR: a stem of 3x3 with stride 1 and no max-pooling


@dataclass(frozen=True)
class Other:
    """An encoder of another plugin: its name and its spec as plain data."""

    plugin: str
    spec: dict[str, Any]

    def __hash__(self) -> int:
        return hash((self.plugin, json.dumps(self.spec, sort_keys=True)))


@dataclass(frozen=True)
class SimCLRSpec:
    """An encoder, either a ResNet of our own or another plugin's network, and what is done with its features h.

    "contrastive" is the pretraining: the network gives z, of `projection` numbers, and needs no classes. "linear" puts
    a classifier on h. The head is the paper's (section 2.1, "v1") or the released code's, with norms ("tf").
    """

    resolution: int
    resnet: ResNetSpec | None = None
    other: Other | None = None
    task: Literal["contrastive", "linear"] = "contrastive"
    head: Literal["v1", "tf"] = "v1"
    projection: int = 128
    temperature: float = 0.1  # tau of the loss
    strength: float = 1.0  # s of the colour distortion
    crop: float = 0.08  # least part of a picture's area that a view shows

    def __post_init__(self) -> None:
        if (self.resnet is None) == (self.other is None):
            raise ScalenetError("simclr: the encoder must be either resnet or other, got both or none of them.")
        if self.temperature <= 0:
            raise ScalenetError(f"simclr: temperature must be above 0, got {self.temperature}.")
        if not 0 < self.crop <= 1:
            raise ScalenetError(f"simclr: crop must be above 0 and at most 1, got {self.crop}.")
        if self.other is None:
            return
        if self.task == "linear":
            raise ScalenetError(f"simclr: task must be contrastive with an encoder of {self.other.plugin}, got linear.")
        if self.other.spec.get("resolution") != self.resolution:
            raise ScalenetError(
                f"simclr: resolution must be its encoder's {self.other.spec.get('resolution')}, got {self.resolution}."
            )


# fmt: off
RESNET_50 = ResNetSpec(64, (  # s  3x3   1x1  n
                       Stage(1,   64,  256, 3),
                       Stage(2,  128,  512, 4),
                       Stage(2,  256, 1024, 6),
                       Stage(2,  512, 2048, 3),
))

RESNET_18 = ResNetSpec(64, (  # s  3x3  3x3  n
                       Stage(1,   64,  64, 2),
                       Stage(2,  128, 128, 2),
                       Stage(2,  256, 256, 2),
                       Stage(2,  512, 512, 2),
), "basic")

RESNET_MICRO = ResNetSpec(8, (  # s 3x3 3x3 n
                          Stage(2,  8,  8, 2),
                          Stage(2, 16, 16, 3),
                          Stage(2, 24, 64, 2),
), "basic", small=True)
# fmt: on

R50 = SimCLRSpec(224, RESNET_50)
R18 = SimCLRSpec(224, RESNET_18)
# Temperature and strength as the paper for CIFAR-10, appendix B.9; less than half of a small picture says little.
MICRO = SimCLRSpec(32, RESNET_MICRO, projection=32, temperature=0.5, strength=0.5, crop=0.5)


class SimCLR(Architecture[SimCLRSpec]):
    """A ResNet and a head, or any other plugin's network in the ResNet's place, by `--variant PLUGIN[/VARIANT]`.

    Scaling is that of the encoder; the head's hidden layer is as wide as h, and z stays as it is. The ResNet's PAPER:
    blocks rounded up per stage, channels in multiples of 8, sides of the total stride; the paper's own wider networks
    have all channels times 2 and 4. FINE: single blocks, channels and pixels.
    The linear task trains everything (fine-tuning); the paper's linear evaluation freezes the encoder, which is what
    the probe of `Contrastive.evaluate` does.
    """

    name = "simclr"
    paper = "https://arxiv.org/abs/2002.05709"
    baseline = "r50_v1head"
    unlearned: ClassVar[Mapping[str, str]] = {
        "head.4.bias": "the released head's last norm has no beta; it stays zero",
        "idle_head.*": "the linear task leaves the projection head out",
    }
    # fmt: off
    variants: Mapping[str, Variant[SimCLRSpec]] = {
        "r50_v1head": Variant(R50, 0, "arXiv:2002.05709, section 2.1", 27966656, 4091592704),
        "r50_tfhead": Variant(replace(R50, head="tf"), 0, "arXiv:2002.05709, released code", 27968832, 4091592704),
        "r50_linear": Variant(replace(R50, task="linear"), 1000, "arXiv:2002.05709, section 4", 30015656, 4089184256),
        "r18_v1head": Variant(R18, 0, "arXiv:2002.05709 with ResNet-18", 11504832, 1813889024),
        "r18_linear": Variant(replace(R18, task="linear"), 1000, "arXiv:2002.05709 with ResNet-18"),
        "micro": Variant(MICRO, 0, "ours: basic blocks behind the CIFAR stem at 32 px, three halvings, z of 32"),
        "micro_linear": Variant(replace(MICRO, task="linear"), 10, "ours: the supervised run of micro's encoder"),
    }
    # fmt: on

    @property
    def flop_counts(self) -> Mapping[type, Callable[..., int]]:  # type: ignore[override]
        """Those of every other plugin, as each may be the encoder."""
        others = [arch for arch in plugins.architectures().values() if not isinstance(arch, SimCLR)]
        return {kind: formula for arch in others for kind, formula in arch.flop_counts.items()}

    def variant(self, name: str) -> Variant[SimCLRSpec]:
        """One of our own, or "PLUGIN" or "PLUGIN/VARIANT": that plugin's baseline or variant as the encoder.

        What is done with its features is as in "micro" up to 64 px, and above as in "r50_v1head".
        """
        plugin, slash, of_plugin = name.partition("/")
        if name in self.variants or not (slash or plugin in plugins.architectures()):
            return super().variant(name)
        arch = plugins.architecture(plugin)
        if isinstance(arch, SimCLR):
            raise ScalenetError(f"simclr: an encoder must be a network of another plugin, got {name}.")
        inner = arch.variant(of_plugin if slash else arch.baseline)
        like = MICRO if inner.spec.resolution <= 64 else R50
        encoder = Other(plugin, to_plain(inner.spec))
        spec = replace(like, resolution=inner.spec.resolution, resnet=None, other=encoder)
        return Variant(spec, 0, f"{inner.source}; pretrained as in arXiv:2002.05709")

    def scale(self, spec: SimCLRSpec, by: Scale, rounding: Rounding = FINE) -> SimCLRSpec:
        if spec.other is not None:
            arch, inner = _resolved(spec.other)
            scaled = arch.scale(inner, by, rounding)
            return replace(spec, resolution=scaled.resolution, other=Other(spec.other.plugin, to_plain(scaled)))
        resnet = _own(spec)

        def channels(count: int) -> int:
            if by.width == 1.0:
                return count
            return make_divisible(count * by.width) if rounding is PAPER else nearest_multiple(count * by.width)

        allot = ceil_depths if rounding is PAPER else allot_depths
        depths = allot([stage.blocks for stage in resnet.stages], by.depth)
        side = spec.resolution
        if by.resolution != 1.0:
            halvings = 1 if resnet.small else 4
            step = halvings * math.prod(stage.stride for stage in resnet.stages) if rounding is PAPER else 1
            side = nearest_multiple(spec.resolution * by.resolution, step, minimum=16)
        stages = tuple(
            replace(stage, middle=channels(stage.middle), channels=channels(stage.channels), blocks=blocks)
            for stage, blocks in zip(resnet.stages, depths, strict=True)
        )
        return replace(spec, resolution=side, resnet=replace(resnet, stem=channels(resnet.stem), stages=stages))

    def size(self, spec: SimCLRSpec) -> Size:
        """The encoder's; of a ResNet, the width is the mean over the blocks' outputs."""
        if spec.other is not None:
            arch, inner = _resolved(spec.other)
            return arch.size(inner)
        stages = _own(spec).stages
        depth = sum(stage.blocks for stage in stages)
        return Size(depth, sum(stage.channels * stage.blocks for stage in stages) / depth, spec.resolution)

    def build(self, spec: SimCLRSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> SimCLRModel:
        """For the contrastive task (n, c, h, w) -> z (n, projection), whatever `num_classes`; else the logits."""
        if spec.other is None:
            encoder: nn.Module = ResNet(_own(spec), in_channels=in_channels, drop_path=drop_path)
            features = _own(spec).stages[-1].channels
        else:
            arch, inner = _resolved(spec.other)
            encoder = arch.build(inner, num_classes=1, in_channels=in_channels, drop_path=drop_path)
            classifier = getattr(encoder, "classifier", None)
            if not isinstance(classifier, nn.Linear):
                raise ScalenetError(
                    f"simclr: an encoder's `classifier` must be an nn.Linear, got {type(classifier).__name__} of "
                    f"{spec.other.plugin}."
                )
            features = classifier.in_features
            encoder.classifier = nn.Identity()
        return SimCLRModel(spec, encoder, features, num_classes=num_classes)

    def resample(self, weights: Mapping[str, Tensor], old: SimCLRSpec, new: SimCLRSpec) -> Mapping[str, Tensor]:
        """The encoder's; heads do not depend on the resolution."""
        if old.other is None or new.other is None or old.other.plugin != new.other.plugin:
            return weights  # of another network: whoever fills it in says so
        arch, inner = _resolved(old.other)
        moved = arch.resample(_inside(weights), inner, _resolved(new.other)[1])
        rest = {name: weight for name, weight in weights.items() if not name.startswith("encoder.")}
        return {**{f"encoder.{name}": weight for name, weight in moved.items()}, **rest}

    def encoder(self, spec: SimCLRSpec, weights: Mapping[str, Tensor]) -> Part | None:
        """The pretrained encoder: the other plugin's network, or our own for the linear task with its idle head."""
        if spec.task == "linear":
            return None
        if spec.other is not None:
            return Part(spec.other.plugin, _resolved(spec.other)[1], _inside(weights))
        idle = {f"idle_{name}" if name.startswith("head.") else name: weight for name, weight in weights.items()}
        return Part(self.name, replace(spec, task="linear"), idle)

    def objective(self, spec: SimCLRSpec) -> Objective:
        """The contrastive loss with its two views; cross-entropy for the linear task."""
        if spec.task == "linear":
            return super().objective(spec)
        return Contrastive(spec.temperature, spec.strength, spec.crop)


def _own(spec: SimCLRSpec) -> ResNetSpec:
    assert spec.resnet is not None  # SimCLRSpec has one or the other
    return spec.resnet


def _resolved(other: Other) -> tuple[Architecture[Any], Any]:
    arch = plugins.architecture(other.plugin)
    if isinstance(arch, SimCLR):
        raise ScalenetError(f"simclr: an encoder must be a network of another plugin, got {other.plugin}.")
    return arch, from_plain(arch.spec_type(), other.spec, f"spec of simclr's encoder {other.plugin}")


def _inside(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = "encoder."
    return {name[len(start) :]: weight for name, weight in weights.items() if name.startswith(start)}


class SimCLRModel(nn.Module):
    """encoder: images -> h (n, features); forward: images -> z = head(h), or the logits of `classifier` on h."""

    def __init__(self, spec: SimCLRSpec, encoder: nn.Module, features: int, *, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        head = _head(spec, features)
        if spec.task == "linear":
            self.idle_head = head  # kept, with its weights, but not executed
            self.classifier = nn.Linear(features, num_classes)
        else:
            self.head = head
        self.classifies = spec.task == "linear"

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> z (n, projection) or logits (n, num_classes)."""
        h = self.encoder(x)
        y: Tensor = self.classifier(h) if self.classifies else self.head(h)
        return y


def _head(spec: SimCLRSpec, features: int) -> nn.Sequential:
    """h -> z: two linear maps with a ReLU in between, as wide as h."""
    if spec.head == "v1":
        return nn.Sequential(nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, spec.projection))
    last = nn.BatchNorm1d(spec.projection)
    last.bias.requires_grad_(False)
    return nn.Sequential(
        nn.Linear(features, features, bias=False),
        nn.BatchNorm1d(features),
        nn.ReLU(inplace=True),
        nn.Linear(features, spec.projection, bias=False),
        last,
    )


class ResNet(nn.Module):
    """(n, in_channels, h, w) -> h (n, channels of the last stage), at any side."""

    def __init__(self, spec: ResNetSpec, *, in_channels: int, drop_path: float) -> None:
        super().__init__()
        kernel, stride = (3, 1) if spec.small else (7, 2)
        self.stem = conv_bn(in_channels, spec.stem, kernel, stride=stride, act=nn.ReLU(inplace=True))
        self.pool = nn.Identity() if spec.small else nn.MaxPool2d(3, 2, padding=1)
        rates = iter(drop_path_rates(drop_path, sum(stage.blocks for stage in spec.stages)))
        channels = spec.stem
        blocks: list[nn.Module] = []
        for stage in spec.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(Block(channels, stage, spec.block, stride=stride, drop_path=next(rates)))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> h (n, channels)."""
        h: Tensor = self.blocks(self.pool(self.stem(x)))
        return h.mean((2, 3))


class Block(nn.Module):
    """Convolutions 3x3 and 3x3, or 1x1, 3x3 and 1x1, beside a shortcut: a projection where the shape changes."""

    def __init__(
        self, in_channels: int, stage: Stage, kind: Literal["basic", "bottleneck"], *, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        middle, channels = stage.middle, stage.channels
        if kind == "basic":
            layers = [
                conv_bn(in_channels, middle, 3, stride=stride, act=nn.ReLU(inplace=True)),
                conv_bn(middle, channels, 3),
            ]
        else:
            layers = [
                conv_bn(in_channels, middle, act=nn.ReLU(inplace=True)),
                conv_bn(middle, middle, 3, stride=stride, act=nn.ReLU(inplace=True)),
                conv_bn(middle, channels),
            ]
        self.branch = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = conv_bn(in_channels, channels, stride=stride)
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.drop_path(self.branch(x))
        y = self.act(y + self.shortcut(x))
        return y


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1, mean over all 2n anchors, in float32; rows i of `first` and `second` (n, d) are of one picture."""
    with torch.autocast(first.device.type, enabled=False):
        z = F.normalize(torch.cat((first, second)).float(), dim=1)
        n = first.shape[0]
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        similarity = (z @ z.T / temperature).masked_fill(itself, -math.inf)
        return F.cross_entropy(similarity, torch.arange(2 * n, device=z.device).roll(n))


class Contrastive:
    """Two views of each picture are to agree more than views of two pictures; judged by what h is good for.

    The two views are mirrored also where the data forbid the recipe to (digits), as the paper's augmentation has it.
    """

    def __init__(self, temperature: float, strength: float, crop: float) -> None:
        self.temperature = temperature
        self.strength = strength
        self.crop = crop

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Two views, by appendix A."""
        return two_views(images, generator, strength=self.strength, crop=self.crop)

    def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """NT-Xent. Both views go through the model as one batch, so that its norms see both; no labels."""
        first, second = model(torch.cat(views)).chunk(2)
        return nt_xent(first, second, self.temperature)

    def evaluate(
        self, model: nn.Module, fit: Iterable[tuple[Tensor, Tensor]], held: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, float]:
        """top1 of a linear probe on h, not z, learned on `fit`, and knn_top1 of its neighbours there (section 2.3)."""
        return judge_features(model.get_submodule("encoder"), fit, held)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """SimCLR with ResNet-50 and ResNet-18, for the linear task, and micro."""
    return [SimCLR()]
