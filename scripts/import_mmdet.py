"""Write ``zoo/index/instance/<head>.toml`` from a JSON list of OpenMMLab's published detectors.

    python scripts/import_mmdet.py published_detection.json

An entry tells in our words what its row tells in mmdetection's, and both must come to the same network. Entries below
the line ``# Trained here`` of an index file are kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lightning_app.weights.openmmlab.backbones import backbone_arguments
from lightning_app.weights.openmmlab.detection import detector_arguments
from zoo import index, writing

HEADS = {  # slug -> name, paper
    "mask_rcnn": ("MaskRCNN", "https://arxiv.org/abs/1703.06870"),
    "faster_rcnn": ("FasterRCNN", "https://arxiv.org/abs/1506.01497"),
    "cascade_mask_rcnn": ("CascadeMaskRCNN", "https://arxiv.org/abs/1906.09756"),
    "gcnet": ("GCNet", "https://arxiv.org/abs/1904.11492"),
    "carafe": ("CARAFE", "https://arxiv.org/abs/1905.02188"),
    "generalized_attention": ("GeneralizedAttention", "https://arxiv.org/abs/1904.05873"),
    "groie": ("GRoIE", "https://arxiv.org/abs/2004.13665"),
    "libra": ("LibraRCNN", "https://arxiv.org/abs/1904.02701"),
}
DETECTORS = {"MaskRCNN": "mask-rcnn", "FasterRCNN": "faster-rcnn", "CascadeRCNN": "cascade-mask-rcnn"}
FAMILIES = {
    "carafe": "carafe",
    "empirical_attention": "generalized_attention",
    "groie": "groie",
    "libra_rcnn": "libra",
}
DEFAULTS = {
    "format": "openmmlab",
    "code_licence": "Apache-2.0",
    "weights_licence": "Apache-2.0",
    "metrics_source": "published by OpenMMLab",
    "dataset": "coco",
    "split": "val2017",
    "image_size": [800, 1333],
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "optimizer": "SGD",
    "lr": 0.02,
    "batch": 16,
}
FILE = re.compile(
    r".*?(_bbox_mAP-(?P<box>0\.\d+)(__segm_mAP-(?P<mask>0\.\d+))?)?_\d{8}(_\d{6})?-(?P<sha256>[0-9a-f]{8})"
)


def head_of(row: dict[str, Any]) -> str:
    """The file that a row belongs to: its block's, or without one its detector's."""
    if row["family"] in FAMILIES:
        return FAMILIES[row["family"]]
    return "gcnet" if row["group"] == "context" else DETECTORS[row["model"]["type"]].replace("-", "_")


def block_of(row: dict[str, Any], head: str) -> str:
    """How the block is called in ids."""
    name = row["name"].replace("_", "-")
    gc = re.findall(r"-(r4|r16)-gcb|gcb-(r4|r16)", name)
    ratio = "".join("".join(each) for each in gc)
    if head == "gcnet":
        return f"gcnet-{ratio}"
    if head == "generalized_attention":
        return "generalized-attention-" + re.findall(r"attention-(\d{4})", name)[0]
    return "groie-gcnet-r4" if head == "groie" and gc else head


def read_row(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Id and entry of a row."""
    file, model = FILE.fullmatch(Path(row["file"]).stem), row["model"]
    if file is None:
        sys.exit(f"{row['file']}: not the name of a published file")
    head, detector = head_of(row), DETECTORS[model["type"]]
    arguments, backbone = detector_arguments(model), backbone_arguments(model["backbone"])
    slug, name = backbone_slug(model["backbone"]), row["name"]
    schedule = re.findall(r"_(?:ms-poly-|ms-|mstrain-poly_|mstrain_|tnr-pretrain_|fp16_)?(\dx)_", name)[0]
    marks = {"ms": "_ms" in name, "tnr": "tnr-pretrain" in name, "fp16": "fp16" in name}
    norm = "-syncbn" if model["backbone"]["norm_cfg"]["type"] == "SyncBN" else ""
    block = "" if head == detector.replace("-", "_") else f"_{block_of(row, head)}"
    id = "-".join([f"{detector}{block}_{slug}{norm}_coco_{schedule}", *(mark for mark, on in marks.items() if on)])

    bgr = not model["data_preprocessor"]["bgr_to_rgb"]
    entry: dict[str, Any] = {"backbone": slug, "detector": detector}
    for key, usual in (("pyramid", "fpn"), ("regions", "level"), ("mask_upsample", "deconv")):
        if arguments.get(key, usual) != usual:
            entry[key] = arguments[key]
    if "context" in backbone:
        entry["context"] = backbone["context"]
    if bgr:
        entry |= {"bgr": True} | {key: model["data_preprocessor"][key] for key in ("mean", "std")}
    metrics, source = figures(row, file)
    entry |= {
        "epochs": row["epochs"],
        "memory_gb": row["train_memory_gb"],
        "metrics": metrics,
        "metrics_source": source,
        "url": row["weights"],
        "sha256": file["sha256"],
        "config": Path(row["config"]).stem,
    }
    return id, entry


def figures(row: dict[str, Any], file: re.Match[str]) -> tuple[dict[str, float], str | None]:
    """The AP of boxes and masks; where the file's name says another than the metafile, the name's."""
    told = {"box_AP": row["box_ap"], "mask_AP": row["mask_ap"]}
    named = {"box_AP": file["box"], "mask_AP": file["mask"]}
    metrics = {key: value for key, value in told.items() if value is not None}
    notes = []
    for key, value in named.items():
        if value is not None and round(100 * float(value), 1) != told[key]:
            metrics[key] = round(100 * float(value), 1)
            notes.append(f"{key} by the file's name and the README, where the metafile says {told[key]}")
    if row["note"] and not notes:
        notes.append(re.split(r":| \(", row["note"].replace("The m", "the m"))[0].rstrip("."))
    return metrics, "; ".join([DEFAULTS["metrics_source"], *notes]) if notes else None


def backbone_slug(config: dict[str, Any]) -> str:
    """The short name of a backbone."""
    parts = [f"r{config['depth']}"]
    if config["type"] == "ResNeXt":
        parts = [f"x{config['depth']}", f"{config['groups']}x{config['base_width']}d"]
    parts += ["caffe"] if config["style"] == "caffe" and config["type"] == "ResNet" else []
    parts += ["dcn"] if config.get("dcn") else []
    return "-".join([*parts, "fpn"])


def write_head(head: str, entries: dict[str, dict[str, Any]]) -> None:
    """Write one index file."""
    path = index.file_of("instance", head)
    path.parent.mkdir(exist_ok=True)
    own = path.read_text().partition(f"\n{writing.TRAINED_HERE}\n") if path.exists() else ("", "", "")
    name, paper = HEADS[head]
    kept = f'which keeps what stands below "{writing.TRAINED_HERE}"'
    parts = [
        f"# Published weights, by scripts/import_mmdet.py, {kept}.\n",
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
    for row in rows:
        id, entry = read_row(row)
        if id in files[head_of(row)]:
            sys.exit(f"{id} stands twice: {row['name']}")
        files[head_of(row)][id] = entry
    for head, entries in files.items():
        write_head(head, entries)
    print(f"{len(rows)} rows, {len(index.list_entries(task='instance'))} entries")


if __name__ == "__main__":
    main()
