"""How FLOPs grow: measured exponents of every baseline, beside those of public implementations.

    python benchmarks/exponents.py

e = ln(FLOPs' / FLOPs) / ln(step), one factor doubled and the network rebuilt and counted. The public figures were taken
the same way on timm, torchvision, transformers or the authors' code by torch's own counter; it sees no FFT and no
involution product, which are counted here, and those codes leave windows as they are where ours follow the side.
About a minute.
"""

from __future__ import annotations

from scalenet import plugins
from scalenet.console import bar, table
from scalenet.meter import Meter

PUBLIC = {  # depth, width, resolution, each doubled
    "senet": (0.891, 1.956, 1.999),
    "mobilenet": (1.149, 1.962, 1.998),
    "efficientnet": (1.020, 1.910, 1.995),
    "vit": (0.991, 1.933, 2.296),
    "mixer": (0.985, 1.985, 2.000),
    "fnet": (0.978, 1.985, 2.000),
    "gmlp": (0.994, 1.840, 2.682),
    "simclr": (0.891, 1.957, 1.999),
    "mobilevit": (0.855, 1.918, 2.340),
    "cct": (0.854, 1.784, 2.292),
    "convmixer": (0.996, 1.952, 2.000),
    "eanet": (0.976, 1.903, 1.995),
    "involution": (0.782, 1.996, 1.999),
    "perceiver": (1.000, 1.302, 1.249),
    "swin": (0.969, 1.975, 2.000),
    "gcvit": (0.920, 1.919, 2.384),
}


def main() -> None:
    rows = []
    architectures = plugins.architectures()
    with bar("counting") as report:
        for done, (name, public) in enumerate(PUBLIC.items()):
            report(done, len(PUBLIC), name)
            arch = architectures[name]
            variant = arch.variants[arch.baseline]
            found = Meter(arch, variant.spec, num_classes=max(1, variant.num_classes)).exponents
            ours = (found.depth, found.width, found.resolution)
            rows.append(
                (
                    f"{name} {arch.baseline} @{variant.spec.resolution}",
                    *(f"{e:.3f}" for e in ours),
                    *(f"{e:.3f}" for e in public),
                )
            )
    table(("baseline", "e_d", "e_w", "e_r", "public e_d", "public e_w", "public e_r"), rows, text_columns=1)


if __name__ == "__main__":
    main()
