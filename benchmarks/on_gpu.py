"""Everything here that wants a CUDA GPU, one after the other: the benchmarks with their bars, and the tests marked gpu.

    python benchmarks/on_gpu.py [--out FOLDER] [--minutes 9] [--only tests,step-micro] [--data FOLDER]

Each part's output goes to FOLDER/<part>.txt and, when it is through, to the screen; the most telling come first, and
none is begun when the minutes are over. scalenet's search runs in one process (`--workers 0`), so Ray is not needed.
The last lines say what each part came to. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
STEP, ROOFLINE, PACKING = "step.py --device cuda", "roofline.py --device cuda", "packing.py --device cuda"
B0 = "--variant b0 --architectures efficientnet --batch 128"
S16 = "--variant s16 --architectures vit --batch 128"
PARTS = {
    "search": "search_vs_script.py --side 32 --fit 10000 --epochs 6 --workers 0 --without-ray 4",
    "tests": "",
    "step-micro": f"{STEP} --pairs 4",
    "step-b0": f"{STEP} {B0} --pairs 3 --pictures 1024",
    "step-s16": f"{STEP} {S16} --pairs 3 --pictures 1024",
    "packing-b0": f"{PACKING} --variant b0 --side 32 --set recipe.batch_size=128",
    "packing-micro": PACKING,
    "roofline-micro": ROOFLINE,
    "roofline-micro-recorded": f"{ROOFLINE} --execution cuda_graphs",
    "roofline-b0": f"{ROOFLINE} {B0}",
    "roofline-s16": f"{ROOFLINE} {S16}",
    "step-micro-recorded": f"{STEP} --pairs 4 --execution cuda_graphs",
    "search-96": "search_vs_script.py --side 96 --fit 2000 --judged 500 --workers 0 --without-ray 4",
}


def command(part: str, data: Path | None) -> list[str]:
    """What a part runs."""
    if part == "tests":  # only files that have some: others import Ray, which need not be here
        files = [str(file) for file in (HERE.parent / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text()]
        return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *files]
    script, *words = PARTS[part].split()
    words += ["--data", str(data)] if data and part.startswith("search") else []
    return [sys.executable, str(HERE / script), *words]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("on_gpu"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, default=None, help="12,000 pictures for the searches; default: drawn")
    told = parser.parse_args()
    if unknown := sorted(set(told.only.split(",")) - set(PARTS)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    told.out.mkdir(parents=True, exist_ok=True)
    start, outcomes = time.monotonic(), {}
    for part in told.only.split(","):
        left = 60 * told.minutes - (time.monotonic() - start)
        if left <= 0:
            outcomes[part] = "not begun"
            continue
        print(f"\n--- {part}: {' '.join(command(part, told.data)[1:])}", flush=True)
        begun, file = time.monotonic(), told.out / f"{part}.txt"
        with file.open("w") as out:  # not by a pipe: what a part that is cut off has said is worth having
            process = subprocess.Popen(
                command(part, told.data), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                outcomes[part] = f"exit code {process.wait(left)}"
            except subprocess.TimeoutExpired:
                outcomes[part] = "cut off"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started, which would keep the GPU
                    process.wait()
        outcomes[part] += f", {time.monotonic() - begun:.0f} s"
        print(file.read_text(), flush=True)
    print("\n" + "\n".join(f"{part:<24} {outcome}" for part, outcome in outcomes.items()))
    return any("exit code 0" not in outcome for outcome in outcomes.values())


if __name__ == "__main__":
    raise SystemExit(main())
