"""Write ``zoo/index/pose/<head>.toml`` from a JSON list of mmpose's published top-down heatmap estimators.

    python scripts/import_mmpose.py published_pose.json

Rows whose backbone or head has no counterpart here are printed, and so are those that stand for the file of another.
Backbones that ``zoo/backbones.toml`` lacks are appended to it. Entries below the line ``# Trained here`` of an index
file are kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.pose import parts_of
from zoo import index, writing
from zoo.datasets import ROOT, backbones

HEADS = {  # slug -> name, paper
    "simple_baseline": ("SimpleBaseline", "https://arxiv.org/abs/1804.06208"),
    "fcn": ("FCN", "https://arxiv.org/abs/1902.09212"),
    "vitpose": ("ViTPose", "https://arxiv.org/abs/2204.12484"),
}
DEFAULTS = {
    "format": "openmmlab",
    "code_licence": "Apache-2.0",
    "weights_licence": "Apache-2.0",
    "metrics_source": "published by OpenMMLab",
    "dataset": "coco-keypoints",
    "split": "val2017",
    "epochs": 210,
    "optimizer": "Adam",
    "lr": 0.0005,
}
USUAL = {"unbiased": False, "blur_kernel_size": 11, "heatmap_type": "gaussian", "radius_factor": 0.0546875}
HEAD = ("type", "in_channels", "out_channels", "deconv_out_channels", "deconv_kernel_sizes", "final_layer")
STRIDES = {"HRNet": 4, "mmpretrain.VisionTransformer": 16}
UNUSED = ("drop_path_rate", "drop_rate", "attn_drop_rate", "with_cp")  # in evaluation


def head_of(config: dict[str, Any]) -> dict[str, Any]:
    """Of a head's config, what its network depends on."""
    head = {key: config[key] for key in HEAD if config.get(key) is not None}
    if not head.get("deconv_out_channels"):
        head |= {"deconv_out_channels": []}
        del head["deconv_kernel_sizes"]
    return head


def backbone_slug(row: dict[str, Any]) -> str:
    """The short name of a backbone, as mmpose's names of configurations have it; one misnames its Swin's window."""
    slug = re.match(r"td-hm_(.+?)(_|$)", row["name"])
    assert slug is not None
    name = re.sub("^vitpose-", "vit-", slug[1].lower()).removesuffix("-simple")
    return re.sub(r"-w7$", f"-w{row['backbone'].get('window_size')}", name)


def dataset_of(row: dict[str, Any]) -> str | None:
    """What was trained on, where that is more than COCO; a head of more points than COCO's has AI Challenger's too."""
    if "coco-aic" not in row["name"]:
        return None
    return "coco-aic-keypoints" if row["head"]["out_channels"] > row["keypoints"] else "coco-aic-merged"


def read_row(row: dict[str, Any]) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Head, id and entry of a row, and its backbone.

    Raises:
        InputError: something in it has no counterpart here.
    """
    parts = parts_of(row)
    name = parts["head"]["class_path"].rpartition(".")[2]
    (head,) = (slug for slug, (known, _) in HEADS.items() if known == name)
    width, height = row["input_size"]
    codec = {key: value for key, value in row["codec"].items() if key not in ("input_size", "heatmap_size")}
    codec = dict(sorted(codec.items(), key=lambda pair: pair[0] != "type"))
    figures = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "AR": "ar", "AR50": "ar50"}
    train = row["train"]
    arguments = parts["backbone"]["init_args"]
    upstream = {key: value for key, value in row["backbone"].items() if key not in UNUSED and value is not None}
    backbone = {
        "name": arguments["name"],
        "output_stride": STRIDES.get(upstream["type"], 32),
        "changes": arguments.get("changes") or None,
        "upstream": upstream,
    }
    entry = {
        "backbone": backbone_slug(row),
        "dataset": dataset_of(row),
        "input_size": [height, width],
        "boxes": row["bbox_file"],
        "codec": {key: value for key, value in codec.items() if USUAL.get(key) != value},
        "heatmap_head": head_of(row["head"]),
        "neck": row["neck"],
        "flip_test": None if row["test_cfg"]["flip_test"] else False,
        "batch": train["base_batch_size"],
        "optimizer": train["optimizer"]["type"] if train["optimizer"]["type"] != "Adam" else None,
        "lr": train["optimizer"]["lr"] if train["optimizer"]["lr"] != DEFAULTS["lr"] else None,
        "metrics": {ours: row[theirs] for ours, theirs in figures.items() if row.get(theirs) is not None},
        "url": row["weights"],
        "sha256": row["sha256_prefix"],
        "config": row["name"],
    }
    return head, row["name"].lower(), entry, backbone


def write_head(head: str, entries: dict[str, dict[str, Any]]) -> None:
    """Write one index file."""
    path = index.file_of("pose", head)
    path.parent.mkdir(exist_ok=True)
    own = path.read_text().partition(f"\n{writing.TRAINED_HERE}\n") if path.exists() else ("", "", "")
    name, paper = HEADS[head]
    kept = f'which keeps what stands below "{writing.TRAINED_HERE}"'
    parts = [
        f"# Published weights, by scripts/import_mmpose.py, {kept}.\n",
        f'name = "{name}"\npaper = "{paper}"\n',
        writing.format_table("defaults", DEFAULTS),
        *(writing.format_table(f"entry.{id}", entry) for id, entry in entries.items()),
    ]
    path.write_text("\n".join(parts) + own[1] + own[2])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = json.loads(Path(sys.argv[1]).read_text())
    files: dict[str, dict[str, dict[str, Any]]] = {head: {} for head in HEADS}
    made: dict[str, dict[str, Any]] = {}
    homes: dict[str, tuple[str, str]] = {}
    for row in rows:
        if not row.get("head"):
            print(f"left out: {row['name']}: its configuration is not published")
            continue
        if row["weights"] in homes:
            head, id = homes[row["weights"]]
            caution = f"{row['name']} with AP {row['ap']} is listed with this file too: no such weights are published"
            files[head][id]["caution"] = caution
            print(f"left out: {caution}")
            continue
        try:
            head, id, entry, backbone = read_row(row)
        except InputError as error:
            print(f"left out: {row['name']}: {error}")
            continue
        if made.setdefault(entry["backbone"], backbone) != backbone:
            sys.exit(f"{row['name']}: another {entry['backbone']} than before")
        files[head][id], homes[row["weights"]] = entry, (head, id)
    with (ROOT / "backbones.toml").open("a") as file:
        for slug in sorted(made.keys() - backbones().keys()):
            file.write("\n" + writing.format_table(slug, made[slug]))
    backbones.cache_clear()
    for head, entries in files.items():
        write_head(head, entries)
    print(f"{len(rows)} rows, {len(index.list_entries(task='pose'))} entries")


if __name__ == "__main__":
    main()
