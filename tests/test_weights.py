from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from scalenet.errors import ScalenetError
from scalenet.weights import load_weights, read_tensors, save_weights, write_tensors


def net(classes: int = 3, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(net(), path, plugin="toy", spec={"depths": [1]}, classes=("a", "b", "c"), side=24)
    return path


def test_the_file_says_how_to_build_and_feed_the_model(file: Path) -> None:
    _, header = read_tensors(file)
    assert header["plugin"] == "toy"
    assert header["spec"] == {"depths": [1]}
    assert header["classes"] == ["a", "b", "c"]
    assert header["side"] == 24
    assert header["mean"] == [0.485, 0.456, 0.406]
    assert header["std"] == [0.229, 0.224, 0.225]


def test_round_trip(file: Path) -> None:
    model = net()
    load_weights(model, file)
    tensors, _ = read_tensors(file)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_another_width_is_refused_by_its_first_tensor(file: Path) -> None:
    with pytest.raises(ScalenetError, match=r"0.weight is \[4, 3, 3, 3\] there, and \[5, 3, 3, 3\]"):
        load_weights(net(width=5), file)


def test_another_network_is_refused_by_its_first_name(file: Path) -> None:
    with pytest.raises(ScalenetError, match=r"it has no 4\.weight"):
        load_weights(nn.Sequential(*net(), nn.Linear(3, 3)), file)
    with pytest.raises(ScalenetError, match=r"it has 3\.bias"):
        load_weights(nn.Sequential(*list(net())[:3]), file)


def test_missing_and_damaged_files_are_errors(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ScalenetError, match="no such file"):
        load_weights(net(), tmp_path / "none")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ScalenetError, match="damaged"):
        load_weights(net(), file)


def test_another_precision_is_read_and_codes_are_refused(file: Path) -> None:
    tensors, header = read_tensors(file)
    write_tensors(file, tensors | {"0.weight": tensors["0.weight"].bfloat16()}, header)
    model = net()
    load_weights(model, file)
    assert torch.equal(model.state_dict()["0.weight"], tensors["0.weight"].bfloat16().float())
    write_tensors(file, tensors | {"0.weight": tensors["0.weight"].to(torch.int8)}, header)
    with pytest.raises(ScalenetError, match=r"0\.weight is torch\.int8 there, and torch\.float32"):
        load_weights(net(), file)
