"""The search that a user of Ray Tune, torchvision and an image folder writes without scalenet, over given candidates.

    python benchmarks/script.py FOLDER TRIALS.json --epochs 2 [--modules scalenet] [--without-ray 4]

FOLDER holds train/<class>/, val/<class>/ and test/<class>/. TRIALS.json is a list of {"spec", "seed", "judged": "val"
or "test"}, the specs those of scalenet's efficientnet; torchvision's own EfficientNet is built from the same table, so
that both sides train the very same networks. ImageFolder and DataLoader with one worker, random crop and mirror, SGD
with Nesterov momentum and a cosine, one trial per CPU. `--modules scalenet` trains scalenet's module in this loop
instead (for `micro`);
`--without-ray N` runs N processes at a time, one candidate each. Prints one line of JSON, start-up included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any


def network(spec: dict[str, Any], classes: int, modules: str) -> Any:
    """The network of that spec."""
    if modules == "scalenet":
        from scalenet.plain import from_plain
        from scalenet.plugins import architecture

        arch = architecture("efficientnet")
        return arch.build(from_plain(arch.spec_type(), spec, "spec"), num_classes=classes)
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    rows, before = [], spec["stem"]
    for s in spec["stages"]:
        rows.append(MBConvConfig(s["expand_ratio"], s["kernel"], s["stride"], before, s["channels"], s["blocks"]))
        before = s["channels"]
    # Without stochastic depth: scalenet's default recipe has none, and the two are to learn alike.
    return EfficientNet(rows, spec["dropout"], 0.0, num_classes=classes, last_channel=spec["head"])


def train(told: dict[str, Any]) -> float:
    """Trains one candidate; top-1 on the test pictures after the last epoch."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, seed = told["spec"]["resolution"], told["seed"]
    torch.manual_seed(seed)
    tensor = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    fit_steps = [
        transforms.Resize((side, side)), transforms.RandomCrop(side, padding=side // 8),
        transforms.RandomHorizontalFlip(),
    ]  # fmt: skip
    fit = datasets.ImageFolder(f"{told['folder']}/train", transforms.Compose(fit_steps + tensor))
    test = datasets.ImageFolder(
        f"{told['folder']}/{told['judged']}", transforms.Compose([transforms.Resize((side, side)), *tensor])
    )
    classes = len(fit.classes)
    draw = torch.Generator().manual_seed(0)
    fit = Subset(fit, torch.randperm(len(fit), generator=draw)[: told["n_train"]].tolist())
    test = Subset(test, torch.randperm(len(test), generator=draw)[: told["n_test"]].tolist())
    fit_loader = DataLoader(fit, told["batch"], shuffle=True, num_workers=1)
    test_loader = DataLoader(test, 256, num_workers=1)
    model = network(told["spec"], classes, told["modules"]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), told["lr"], momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, told["epochs"] * len(fit_loader))
    top1 = 0.0
    for _ in range(told["epochs"]):
        model.train()
        for images, labels in fit_loader:
            loss = torch.nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in test_loader:
                right += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
        top1 = right / len(test)
    return top1


def with_ray(jobs: list[dict[str, Any]], gpus: float) -> list[float]:
    """One trial per CPU, as Tune does by default."""
    import ray
    from ray import tune

    # Plain `ray.init()` would look for a cluster first, and wait for a dead one.
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    resources = {"cpu": 1.0} | ({"gpu": gpus} if gpus else {})

    def trial(config: dict[str, Any]) -> None:
        tune.report({"top1": train(config["job"])})

    tuner = tune.Tuner(tune.with_resources(trial, resources), param_space={"job": tune.grid_search(jobs)})
    results = tuner.fit()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials failed: {results.errors[0]}")
    return [result.metrics["top1"] for result in results]


def with_processes(jobs: list[dict[str, Any]], at_once: int) -> list[float]:
    """A fresh process per candidate, so many at once."""
    with multiprocessing.get_context("spawn").Pool(at_once, maxtasksperchild=1) as pool:
        return pool.map(train, jobs, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--n-train", type=int, default=5000)
    parser.add_argument("--n-test", type=int, default=2000)
    parser.add_argument("--modules", choices=["torchvision", "scalenet"], default="torchvision")
    parser.add_argument("--without-ray", type=int, metavar="N", default=0)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0)
    told = parser.parse_args()
    common = {"folder": str(told.folder.resolve()), "epochs": told.epochs, "batch": told.batch, "lr": told.lr}
    common |= {"n_train": told.n_train, "n_test": told.n_test, "modules": told.modules}
    jobs = [{**common, **trial} for trial in json.loads(told.trials.read_text())]
    start = time.perf_counter()
    top1 = with_processes(jobs, told.without_ray) if told.without_ray else with_ray(jobs, told.gpus_per_trial)
    seconds = time.perf_counter() - start
    images = len(jobs) * told.epochs * told.n_train
    print(json.dumps({"trials": len(jobs), "images": images, "seconds": seconds, "top1": top1, "cpus": os.cpu_count()}))


if __name__ == "__main__":
    main()
