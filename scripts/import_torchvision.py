"""Write torchvision's segmentation weights into ``zoo/index/semantic``, by what the installed torchvision says of them.

    python scripts/import_torchvision.py
    python scripts/count_costs.py

Run it after ``import_more.py``; its part of an index file stands above the line ``# Trained here``.
"""

import re
from typing import Any

from torchvision.models import get_model_weights

from lightning_app.weights.torchvision import NETWORKS
from zoo import index, writing

MARK = "# torchvision's weights, by scripts/import_torchvision.py"
BACKBONES = {"resnet50": "r50b-d8", "resnet101": "r101b-d8", "mobilenet_v3_large": "m-v3-d16"}
SHARED = {
    "dataset": "coco-voc",
    "split": "val2017",
    "crop": [480, 480],
    "metrics_source": "published by torchvision, short side of image and label at 520 pixels",
    "epochs": 30,
    "batch": 32,
    "optimizer": "SGD",
    "format": "torchvision",
    "code_licence": "BSD-3-Clause",
    "weights_licence": "not stated; of the code BSD-3-Clause",
}  # the training's by references/segmentation of torchvision: its flags, and the defaults of train.py


def entry(name: str) -> tuple[str, dict[str, Any]]:
    """Id and table of the weights of one of torchvision's networks."""
    weights = get_model_weights(name).DEFAULT
    head, _, backbone = name.partition("_")
    sha256 = re.findall(r"-([0-9a-f]{8})\.pth$", weights.url)[0]
    (figures,) = weights.meta["_metrics"].values()
    table = {
        "backbone": BACKBONES[backbone],
        **SHARED,
        "metrics": {"mIoU": figures["miou"]},
        "lr": 0.02 if backbone.startswith("resnet") else 0.01,
        "url": weights.url,
        "sha256": sha256,
        "config": name,
    }
    return f"{head}_{BACKBONES[backbone]}_coco-voc-480x480_30e", table


def main() -> None:
    for head in sorted({name.partition("_")[0] for name in NETWORKS}):
        path = index.file_of("semantic", head)
        above, line, own = path.read_text().partition(f"\n{writing.TRAINED_HERE}\n")
        tables = [
            writing.format_table(f"entry.{id}", table)
            for id, table in (entry(name) for name in NETWORKS if name.partition("_")[0] == head)
        ]
        parts = [above.partition(f"\n{MARK}\n")[0].rstrip(), f"\n{MARK}\n", *tables]
        path.write_text("\n".join(parts) + line + own)
    print(f"{len(index.check())} entries ok")


if __name__ == "__main__":
    main()
