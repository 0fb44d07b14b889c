from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scalenet.data import DataRequest, Prepared, open_part, prepare
from scalenet.data import batches as module
from scalenet.data.batches import Batches, evaluation_batches, normalise
from scalenet.errors import ScalenetError
from tests.data.pictures import folder


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> Prepared:
    return prepare(DataRequest(str(folder(tmp_path / "x", {"a": 20, "b": 20}, side=40))), 32)


def gather(batches, epoch=0):
    parts = list(batches.epoch(epoch))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_shapes_ranges_and_lengths(prepared):
    fit = Batches(prepared, "fit", side=20, batch_size=10, seed=0)
    found = list(fit.epoch(0))
    assert [tuple(images.shape) for images, _ in found] == [(10, 3, 20, 20), (10, 3, 20, 20), (4, 3, 20, 20)]
    assert len(fit) == 3
    for images, labels in found:
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.is_contiguous()
        assert 0.0 <= images.min() < 0.2
        assert 0.8 < images.max() <= 1.0


def test_a_last_batch_of_one_is_left_out(prepared):
    assert prepared.counts["fit"] == 24
    fit = Batches(prepared, "fit", side=20, batch_size=23, seed=0)
    assert [len(labels) for _, labels in fit.epoch(0)] == [23]
    assert len(fit) == 1
    assert [len(y) for _, y in Batches(prepared, "fit", side=20, batch_size=100, seed=0).epoch(0)] == [24]


def test_every_picture_comes_once_an_epoch_with_its_label(prepared):
    # At 32 px out of 37 a window keeps most of its picture: the nearest stored one must be its own.
    pictures, labels = open_part(prepared, "fit")
    small = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255, (8, 8), mode="area"
    )
    images, found = gather(Batches(prepared, "fit", side=36, batch_size=5, seed=0, flip=False))
    own = torch.nn.functional.interpolate(images, (8, 8), mode="area")
    nearest = (own[:, None] - small[None]).flatten(2).norm(dim=2).argmin(1)
    assert sorted(nearest.tolist()) == list(range(24))
    assert found.tolist() == labels[nearest.numpy()].tolist()


def test_draws_depend_on_seed_and_epoch_only(prepared):
    first = gather(Batches(prepared, "fit", side=20, batch_size=10, seed=1), 3)
    torch.rand(100)
    fit = Batches(prepared, "fit", side=20, batch_size=10, seed=1)
    list(fit.epoch(0))  # what came before does not matter
    again = gather(fit, 3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], gather(fit, 4)[0])
    assert not torch.equal(first[0], gather(Batches(prepared, "fit", side=20, batch_size=10, seed=2), 3)[0])
    assert torch.equal(first[0], gather(Batches(prepared, "fit", side=20, batch_size=7, seed=1), 3)[0])


@pytest.fixture
def ramps(tmp_path) -> Prepared:
    """Pictures whose red tells x and green tells y, blue their number."""
    y, x = np.indices((74, 74)) * 3
    for i in range(20):
        path = tmp_path / "ramps" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([x, y, np.full_like(x, 12 * i)], axis=2).astype(np.uint8)).save(path)
    return prepare(DataRequest(str(tmp_path / "ramps")), 64)


def corners(images: torch.Tensor) -> torch.Tensor:
    """The upper left corner of each window, as a fraction of the room there is, and whether it is mirrored."""
    side = images.shape[2]
    scale = 74 / module.grown(side)  # pixels of the stored picture to one of the resized
    x, y = images[:, 0, 0, 0] * 255 / 3 / scale, images[:, 1, 0, 0] * 255 / 3 / scale
    mirrored = images[:, 0, 0, 0] > images[:, 0, 0, -1]
    x = torch.where(mirrored, x - side + 1, x)
    return torch.stack([x, y, mirrored], dim=1) / torch.tensor([module.grown(side) - side] * 2 + [1])


def test_candidates_of_other_sides_see_the_same(ramps):
    small, labels = gather(Batches(ramps, "fit", side=32, batch_size=4, seed=5))
    large, others = gather(Batches(ramps, "fit", side=64, batch_size=4, seed=5))
    assert torch.equal(labels, others)
    assert torch.allclose(small[:, 2].mean((1, 2)), large[:, 2].mean((1, 2)), atol=1e-3)  # the same pictures
    assert torch.equal(corners(small)[:, 2], corners(large)[:, 2])  # mirrored alike
    assert (corners(small) - corners(large)).abs().max() < 0.25  # 5 and 10 px of room: one step is a fifth
    assert corners(large)[:, :2].std(0).min() > 0.15  # and not all at one place


def test_places_and_mirrorings_cover_what_they_should(ramps):
    fit = Batches(ramps, "fit", side=32, batch_size=12, seed=0)
    found = torch.cat([corners(gather(fit, epoch)[0]) for epoch in range(60)])
    steps = (found[:, :2] * 5).round()
    for axis in range(2):
        counts = torch.bincount(steps[:, axis].long(), minlength=6)
        assert len(counts) == 6
        assert counts.min() > 60  # of 720, 120 expected in each of six places
    assert 0.4 < found[:, 2].mean() < 0.6


def test_flip_can_be_turned_off_and_digits_forbid_it(ramps):
    assert corners(gather(Batches(ramps, "fit", side=32, batch_size=4, seed=5, flip=False))[0])[:, 2].sum() == 0
    digits = replace(ramps, flip=False)
    assert corners(gather(Batches(digits, "fit", side=32, batch_size=4, seed=5))[0])[:, 2].sum() == 0


def test_judging_cuts_the_middle_and_keeps_the_order(ramps):
    held = evaluation_batches(ramps, "held", side=64, batch_size=3)
    assert len(held) == 2
    for _ in range(2):
        images, labels = (torch.cat(found) for found in zip(*held, strict=True))
        pictures, expected = open_part(ramps, "held")
        assert labels.tolist() == expected.tolist()
        window = torch.from_numpy(np.array(pictures[:, 5:69, 5:69])).permute(0, 3, 1, 2) / 255
        assert torch.equal(images, window)  # stored at 74 = round(1.15 * 64): nothing is resized


def test_resizing_agrees_with_pillow(ramps):
    images = torch.cat([images for images, _ in evaluation_batches(ramps, "held", side=32, batch_size=3)])
    pictures, _ = open_part(ramps, "held")
    for image, stored in zip(images, pictures, strict=True):
        resized = np.asarray(Image.fromarray(stored).resize((37, 37), Image.Resampling.BILINEAR))[2:34, 2:34]
        assert abs(image.permute(1, 2, 0).numpy() * 255 - resized).max() <= 1.01


@pytest.mark.parametrize("many", [0, 3, 100])
def test_how_many_batches_are_cut_together_makes_no_difference(prepared, many, monkeypatch):
    def epoch(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(Batches(prepared, side=32, batch_size=size, seed=0).epoch(1))

    for size in (5, 23, 24):  # 24 pictures: a short last batch, one left out, none
        monkeypatch.setattr(module, "CUT", size * 32 * 32 * 3)
        expected = epoch(size)
        monkeypatch.setattr(module, "CUT", many * size * 32 * 32 * 3)
        found = epoch(size)
        assert [len(labels) for _, labels in found] == {5: [5, 5, 5, 5, 4], 23: [23], 24: [24]}[size]
        for one, other in zip(found, expected, strict=True):
            assert all(map(torch.equal, one, other))


def test_too_much_to_keep_gives_the_same_pictures(prepared, monkeypatch):
    kept = [gather(Batches(prepared, "fit", side=side, batch_size=7, seed=1)) for side in (20, 32, 48)]
    monkeypatch.setattr(module, "KEPT", {"cpu": 0})
    for side, (images, labels) in zip((20, 32, 48), kept, strict=True):
        again = gather(Batches(prepared, "fit", side=side, batch_size=7, seed=1))
        assert torch.equal(again[0], images)
        assert torch.equal(again[1], labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("side", [20, 48])
def test_an_accelerator_gives_the_same_pictures(prepared, side, monkeypatch):
    expected = gather(Batches(prepared, "fit", side=side, batch_size=7, seed=1))
    for limit in (module.KEPT["cuda"], 0):
        monkeypatch.setattr(module, "KEPT", {"cpu": 0, "cuda": limit})
        found = gather(Batches(prepared, "fit", side=side, batch_size=7, seed=1, device="cuda"))
        assert found[0].device.type == found[1].device.type == "cuda"
        assert (found[0].cpu() - expected[0]).abs().max() <= 1.01 / 255
        assert torch.equal(found[1].cpu(), expected[1])


def test_channels_last(prepared):
    fit = Batches(prepared, "fit", side=20, batch_size=8, seed=0, channels_last=True)
    images = next(fit.epoch(0))[0]
    assert images.is_contiguous(memory_format=torch.channels_last)
    plain = next(Batches(prepared, "fit", side=20, batch_size=8, seed=0).epoch(0))[0]
    assert torch.equal(images, plain)
    held = evaluation_batches(prepared, "held", side=20, batch_size=8, channels_last=True)
    assert next(iter(held))[0].is_contiguous(memory_format=torch.channels_last)


def test_normalise_uses_imagenets_statistics():
    found = normalise(torch.full((2, 3, 4, 4), 0.5))
    assert found[0, :, 0, 0].tolist() == pytest.approx([0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225], rel=1e-5)


def test_normalise_keeps_the_memory_format_and_the_figures():
    plain = torch.rand(3, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = normalise(plain.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, normalise(plain))


@pytest.mark.parametrize("side", [5, 9])
def test_a_cpu_and_an_accelerator_cut_the_same(side):
    """Both beside slices of numpy's, one at a time."""
    draw = np.random.default_rng(side)
    source, corners = draw.integers(0, 256, (6, 9, 9, 3), dtype=np.uint8), draw.integers(0, 10 - side, (6, 2))
    mirrored = np.array([True, False, True, True, False, False])
    rows = np.array([5, 0, 3, 3, 1, 2])
    expected = [source[i, y : y + side, x : x + side] for i, (y, x) in zip(rows, corners, strict=True)]
    expected = [w[:, ::-1] if m else w for w, m in zip(expected, mirrored, strict=True)]
    told = torch.from_numpy(rows), torch.from_numpy(corners), torch.from_numpy(mirrored), side
    on_cpu = module.cut(source, *told)
    assert torch.equal(on_cpu, module.picked(torch.from_numpy(source), *told))
    assert np.array_equal(on_cpu.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_bad_input_is_refused(prepared):
    with pytest.raises(ScalenetError, match="batch_size is 1"):
        Batches(prepared, "fit", side=20, batch_size=1, seed=0)
    with pytest.raises(ScalenetError, match="gone or damaged"):
        Batches(replace(prepared, directory="/nowhere"), "fit", side=20, batch_size=4, seed=0)
