"""The networks of Perceiver IO against those of transformers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scalenet_plugins.perceiver import IO_CONV, IO_FOURIER, IO_LEARNED, Perceiver
from torch import nn
from transformers import (
    PerceiverConfig,
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationFourier,
    PerceiverForImageClassificationLearned,
)

from .references.perceiver import SMALL

ARCHITECTURE = Perceiver()


class Logits(nn.Module):
    """A network of transformers as one of logits, at another side than its authors'."""

    def __init__(self, kind, spec, num_classes, side):
        super().__init__()
        self.net = kind(
            PerceiverConfig(
                num_latents=spec.num_latents,
                d_latents=spec.dim,
                num_blocks=spec.rounds,
                num_self_attends_per_block=spec.self_attends,
                num_self_attention_heads=spec.num_heads,
                num_cross_attention_heads=1,
                image_size=spec.resolution,
                num_labels=num_classes,
            )
        )
        if spec.bands:  # which the class fixes
            self.net.perceiver.input_preprocessor.position_embeddings.max_resolution = (side, side)

    def forward(self, x):
        return self.net(x).logits


def move(source, target):
    """transformers' weights into ours, whose queries, keys and values are fused."""
    theirs = {name.removeprefix("net.perceiver."): t for name, t in source.state_dict().items()}
    blocks = {"first": "encoder.cross_attention", "decoder.cross": "decoder.decoder.decoding_cross_attention"}
    blocks |= {f"blocks.{i}": f"encoder.self_attends.{i}" for i in range(len(target.blocks))}
    parts = {
        "norm": ["attention.self.layernorm1"],
        "source_norm": ["attention.self.layernorm2"],
        "query": ["attention.self.query"],
        "key_value": ["attention.self.key", "attention.self.value"],
        "attention.qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
        "out": ["attention.output.dense"],
        "attention.out": ["attention.output.dense"],
        "mlp_norm": ["layernorm"],
        "mlp.0": ["mlp.dense1"],
        "mlp.2": ["mlp.dense2"],
    }
    convnet = "input_preprocessor.convnet"
    others = {
        "latents": "embeddings.latents",
        "decoder.query": "decoder.decoder.output_position_encodings.position_embeddings",
        "classifier.weight": "decoder.decoder.final_layer.weight",
        "classifier.bias": "decoder.decoder.final_layer.bias",
        "pixels.table": "input_preprocessor.position_embeddings.position_embeddings",
        "pixels.places.weight": "input_preprocessor.positions_projection.weight",
        "pixels.places.bias": "input_preprocessor.positions_projection.bias",
        "pixels.colours.weight": f"{convnet}_1x1.weight",
        "pixels.colours.bias": f"{convnet}_1x1.bias",
        "pixels.stem.0.0.weight": f"{convnet}.conv.weight",
        **{
            f"pixels.stem.0.1.{end}": f"{convnet}.batchnorm.{end}"
            for end in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        },
    }
    left, ours = set(theirs), {}
    for name, tensor in target.state_dict().items():
        if name in others:
            names = [others[name]]
        else:
            block = next(block for block in blocks if name.startswith(f"{block}."))
            part, _, end = name.removeprefix(f"{block}.").rpartition(".")
            names = [f"{blocks[block]}.{p}.{end}" for p in parts[part]]
        ours[name] = torch.cat([theirs[n] for n in names]).view(tensor.shape) if tensor.ndim else theirs[names[0]]
        left -= set(names)
    assert not left
    target.load_state_dict(ours)


def huggingface(parity, spec, side):
    kinds = {
        "fourier": PerceiverForImageClassificationFourier,
        "learned": PerceiverForImageClassificationLearned,
        "stem": PerceiverForImageClassificationConvProcessing,
    }
    kind = kinds["learned" if spec.position_channels else "stem" if spec.stem else "fourier"]
    model = ARCHITECTURE.build(spec, num_classes=11)
    frequencies = model.pixels.side  # of the map that is read
    return parity(model, Logits(kind, spec, 11, frequencies), side, move)


@pytest.mark.parametrize("side", [17, 22])  # that of the spec and another one
def test_logits_are_those_of_transformers_with_fourier_features(side, parity):
    huggingface(parity, replace(IO_FOURIER, resolution=17, **SMALL), side).check()


def test_logits_are_those_of_transformers_with_learned_positions(parity):
    huggingface(parity, replace(IO_LEARNED, resolution=17, **SMALL), 17).check()


@pytest.mark.parametrize("side", [29, 30])  # maps of 15, then 7; transformers drops the last pixels of even ones
def test_logits_are_those_of_transformers_with_a_stem(side, parity):
    huggingface(parity, replace(IO_CONV, resolution=side, **SMALL), side).check()


def test_params_of_the_stem_are_those_of_transformers():
    with torch.device("meta"):
        ours = ARCHITECTURE.build(IO_CONV, num_classes=1000)
        theirs = Logits(PerceiverForImageClassificationConvProcessing, IO_CONV, 1000, 56)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.pixels.side == 56
