"""Throughput of every architecture's smallest published variant against a public or an obvious implementation.

    python benchmarks/architectures.py [--device cuda] [--architectures vit,swin] [--pairs 7] [--threads N] [--json]

The peer is timm's, torchvision's or transformers' network; for cct, eanet, involution and the first Perceiver, which
have none on PyPI, the tests' slow reference. Both sides have the same batch, side, threads, memory format, float32,
cross-entropy, AdamW and no dropout; their parameters are compared once. Forward is in evaluation mode without
gradients; a training step is forward, backward and optimiser. After a warm-up the two sides take turns; a figure is the
median over the pairs of our images per second over the peer's, in brackets the lowest and the highest.

Bar: 1.0; below 0.97 is a defect and sets the exit code. Run it with nothing else on the machine; some 10 minutes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.plugins import architectures

BAR, DEFECT = 1.0, 0.97
SECONDS = 0.4  # of one timing
CUDA_BATCHES = 8  # batches on CUDA are this many times those on a CPU
CLASSES = 1000


@dataclass(frozen=True)
class Match:
    """One row: a variant of ours (changed, where it is too large to be timed) and who makes its peer."""

    architecture: str
    variant: str
    peer: str  # what the table calls it
    make: Callable[[Any], nn.Module]  # (spec) -> the peer
    batch: int  # on a CPU
    classes: int = CLASSES
    change: Mapping[str, Any] | None = None  # fields of the spec


@dataclass(frozen=True)
class Speed:
    """Images per second of both sides over interleaved timings, and their ratios pair by pair."""

    ours: float
    peer: float
    ratio: float
    lowest: float
    highest: float


def from_timm(name: str) -> Callable[[Any], nn.Module]:
    """timm's network of that name for images of the spec's side."""

    def make(spec: Any) -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES)

    return make


def half_mobilenet(spec: Any) -> nn.Module:
    """timm has no name for it; its registered networks have ReLU6 where the paper has ReLU."""
    import timm.models.efficientnet

    act = nn.ReLU
    return timm.models.efficientnet._gen_mobilenet_v1(
        "mobilenetv1_100", 0.5, pretrained=False, act_layer=act, num_classes=CLASSES
    )


def simclr_on_torchvision(spec: Any) -> nn.Module:
    import torchvision

    net = torchvision.models.resnet18()
    net.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, spec.projection))
    return net


class FNetOnTransformers(nn.Module):
    """transformers' encoder between patches with positions, as its embedding norms and projects them, and a mean."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        from transformers import FNetConfig
        from transformers.models.fnet.modeling_fnet import FNetEncoder

        config = FNetConfig(
            hidden_size=spec.dim,
            num_hidden_layers=spec.blocks,
            intermediate_size=spec.mlp_ratio * spec.dim,
            hidden_dropout_prob=0.0,
        )
        self.patches = nn.Conv2d(3, spec.dim, spec.patch_size, spec.patch_size)
        self.positions = nn.Parameter(torch.zeros((spec.resolution // spec.patch_size) ** 2, spec.dim))
        self.norm = nn.LayerNorm(spec.dim, eps=config.layer_norm_eps)
        self.projection = nn.Linear(spec.dim, spec.dim)
        self.encoder = FNetEncoder(config)
        self.head = nn.Linear(spec.dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, side, side) -> logits."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = self.encoder(self.projection(self.norm(x))).last_hidden_state
        logits: Tensor = self.head(x.mean(1))
        return logits


class PerceiverOnTransformers(nn.Module):
    """transformers' Perceiver IO with Fourier features, at a spec's size."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        from transformers import PerceiverConfig, PerceiverForImageClassificationFourier

        self.net = PerceiverForImageClassificationFourier(
            PerceiverConfig(
                num_latents=spec.num_latents,
                d_latents=spec.dim,
                num_blocks=spec.rounds,
                num_self_attends_per_block=spec.self_attends,
                num_self_attention_heads=spec.num_heads,
                num_cross_attention_heads=1,
                attention_probs_dropout_prob=0.0,
                num_labels=CLASSES,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, side, side) -> logits."""
        logits: Tensor = self.net(x).logits
        return logits


def from_tests(name: str, classes: int = CLASSES) -> Callable[[Any], nn.Module]:
    """The slow, obvious network that the tests compare logits with."""

    def make(spec: Any) -> nn.Module:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        module = importlib.import_module(f"tests.plugins.references.{name}")
        made: nn.Module = module.reference(spec, classes)
        return made

    return make


SMALLER = {"resolution": 64, "num_latents": 32}  # half the work on pixels, half on latents, as at 224 px with 512

# fmt: off
MATCHES = (
    Match("senet",        "se_resnet50", "timm",         from_timm("seresnet50"), 4),
    Match("mobilenet",    "0.5x",        "timm",         half_mobilenet, 8),
    Match("efficientnet", "b0",          "timm",         from_timm("efficientnet_b0"), 8),
    Match("vit",          "ti16",        "timm",         from_timm("vit_tiny_patch16_224"), 8),
    Match("mixer",        "s32",         "timm",         from_timm("mixer_s32_224"), 8),
    Match("fnet",         "ti16",        "transformers", FNetOnTransformers, 8),
    Match("gmlp",         "ti16",        "timm",         from_timm("gmlp_ti16_224"), 8),
    Match("simclr",       "r18_v1head",  "torchvision",  simclr_on_torchvision, 8, classes=128),
    Match("mobilevit",    "xxs",         "timm",         from_timm("mobilevit_xxs"), 8),
    Match("cct",          "2_3x2",       "reference",    from_tests("cct", 10), 16, classes=10),
    Match("convmixer",    "1024_20",     "timm",         from_timm("convmixer_1024_20_ks9_p14"), 2),
    Match("eanet",        "eamlp7",      "reference",    from_tests("eanet"), 4),
    Match("involution",   "rednet26",    "reference",    from_tests("involution"), 4),
    Match("perceiver",    "io_fourier",  "transformers", PerceiverOnTransformers, 2, change=SMALLER),
    Match("perceiver",    "v1_paper",    "reference",    from_tests("perceiver"), 2, change=SMALLER),
    Match("swin",         "t",           "timm",         from_timm("swin_tiny_patch4_window7_224"), 4),
    Match("gcvit",        "xxt",         "timm",         from_timm("gcvit_xxtiny"), 4),
)
# fmt: on


class Side:
    """A network with its optimiser, ready to be timed in one way."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, training: bool) -> None:
        self.model, self.images, self.labels, self.training = model.train(training), images, labels, training
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.once()  # allocates, chooses kernels
        self.iterations = max(1, round(SECONDS / self.seconds(1)))

    def once(self) -> None:
        """One forward pass, or one training step."""
        if not self.training:
            with torch.inference_mode():
                self.model(self.images)
            return
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.images), self.labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def seconds(self, iterations: int) -> float:
        """Wall time of that many, the device's work included."""
        finish(self.images.device)
        start = time.perf_counter()
        for _ in range(iterations):
            self.once()
        finish(self.images.device)
        return time.perf_counter() - start

    def rate(self) -> float:
        """Images per second, timed once."""
        return len(self.images) * self.iterations / self.seconds(self.iterations)


def finish(device: torch.device) -> None:
    """CUDA returns before the work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(models: Sequence[nn.Module], images: Tensor, labels: Tensor, training: bool, pairs: int) -> Speed:
    """The two sides by turns, either one first in half of the pairs; a first pair is thrown away.

    Every pair runs on copies of its own: where in memory a network happens to lie is worth up to 5 % of its speed.
    """
    rates = []
    for i in range(pairs + 1):
        ours, peer = (Side(copy.deepcopy(model), images, labels, training) for model in models)
        if i % 2:
            first = ours.rate()
            rates.append((first, peer.rate()))
        else:
            first = peer.rate()
            rates.append((ours.rate(), first))
    del rates[0]
    ratios = sorted(a / b for a, b in rates)
    return Speed(median(a for a, _ in rates), median(b for _, b in rates), median(ratios), min(ratios), max(ratios))


def without_dropout(model: nn.Module) -> nn.Module:
    """The libraries' defaults differ."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):  # timm's and torchvision's stochastic depth
            module.drop_prob = 0.0
    return model


def same_weights(ours: nn.Module, peer: nn.Module) -> None:
    """Gives the peer our weights where the order of their tensors agrees: tiny numbers, which other initialisations
    may leave after many layers, are slower to multiply.
    """
    mine, theirs = list(ours.state_dict().values()), list(peer.state_dict().values())
    if [t.squeeze().shape for t in mine] == [t.squeeze().shape for t in theirs]:
        with torch.no_grad():
            for new, old in zip(mine, theirs, strict=True):
                old.copy_(new.reshape(old.shape))


def compare(match: Match, *, device: torch.device, memory_format: torch.memory_format, pairs: int) -> dict[str, Any]:
    """Both figures of a row.

    Raises:
        SystemExit: the two networks are not the same.
    """
    arch = architectures()[match.architecture]
    variant = arch.variants[match.variant]
    spec = replace(variant.spec, **(match.change or {}))
    torch.manual_seed(0)
    models = [arch.build(spec, num_classes=variant.num_classes), match.make(spec)]
    params = [sum(p.numel() for p in model.parameters()) for model in models]
    if params[0] != params[1]:
        raise SystemExit(f"{match.architecture} {match.variant} has {params[0]} params, {match.peer}'s has {params[1]}")
    same_weights(*models)
    models = [without_dropout(model).to(device, memory_format=memory_format) for model in models]
    batch = match.batch * (CUDA_BATCHES if device.type == "cuda" else 1)
    images = torch.randn(batch, 3, spec.resolution, spec.resolution, device=device)
    images = images.contiguous(memory_format=memory_format)
    labels = torch.randint(match.classes, (batch,), device=device)
    speeds = {
        what: race(models, images, labels, training, pairs) for what, training in (("forward", False), ("step", True))
    }
    row = {"architecture": match.architecture, "variant": match.variant, "peer": match.peer, "side": spec.resolution}
    return {**row, "batch": batch, "params": params[0], **{what: asdict(speed) for what, speed in speeds.items()}}


def verdict(ratio: float) -> str:
    return "ok" if ratio >= BAR else "below 1" if ratio >= DEFECT else "MISSED"


def cells(speed: Mapping[str, float]) -> str:
    spread = f"[{speed['lowest']:.2f} .. {speed['highest']:.2f}]"
    ratio = speed["ratio"]
    return f"{speed['ours']:>9.1f} {speed['peer']:>9.1f}  {ratio:>6.2f} {spread:<17} {verdict(ratio):<8}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted({match.architecture for match in MATCHES})
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--architectures", default=",".join(names), help="names with commas between (default: all)")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None, help="default: all cores")
    parser.add_argument("--memory-format", default="channels_last", choices=("channels_last", "contiguous"))
    parser.add_argument("--json", action="store_true", help="all figures as one last line")
    told = parser.parse_args()
    wanted = told.architectures.split(",")
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no architecture {', '.join(unknown)}; there are {', '.join(names)}")
    if told.threads is not None:
        torch.set_num_threads(told.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(told.device)
    memory_format = torch.channels_last if told.memory_format == "channels_last" else torch.contiguous_format
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, {told.memory_format}, float32, median of {told.pairs} pairs [range]")
    header = f"{'ours':>9} {'peer':>9}  {'ratio':>6} {'':<17} {'':<8}"
    print(f"{'':<46} {'forward, images/s':<{len(header)}} training step, images/s")
    print(f"{'':<37} {'images':<8}{header} {header}".rstrip())
    rows, start = [], time.perf_counter()
    for match in MATCHES:
        if match.architecture not in wanted:
            continue
        if match.architecture not in architectures():
            print(f"{match.architecture}: not installed, so not timed.")
            continue
        row = compare(match, device=device, memory_format=memory_format, pairs=told.pairs)
        rows.append(row)
        name = f"{match.architecture} {match.variant} / {match.peer}"
        images = f"{row['batch']} x {row['side']}"
        print(f"{name:<37} {images:<8}{cells(row['forward'])} {cells(row['step'])}".rstrip(), flush=True)
        gc.collect()
    missed = [r["architecture"] for r in rows if min(r["forward"]["ratio"], r["step"]["ratio"]) < DEFECT]
    print(f"{len(rows)} rows in {(time.perf_counter() - start) / 60:.1f} min, bar {BAR:g}, ", end="")
    print(f"a defect below {DEFECT:g}: {', '.join(missed) or 'none'}")
    if told.json:
        print(json.dumps({"device": where, "torch": torch.__version__, "pairs": told.pairs, "rows": rows}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
