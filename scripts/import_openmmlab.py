"""Write ``zoo/index/semantic/<head>.toml`` from a JSON list of OpenMMLab's published checkpoints.

    python scripts/import_openmmlab.py published_checkpoints.json

The file name in a row's address decides over its other fields: some names stand twice upstream, some rows name the
config or the schedule of a neighbour. What differs is printed. Entries below the line ``# Trained here`` of an index
file are kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lightning_app.weights.openmmlab.published import upstream_config
from zoo import index, writing

FAMILIES = {
    "ann": "ANN",
    "apcnet": "APCNet",
    "ccnet": "CCNet",
    "danet": "DANet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "dmnet": "DMNet",
    "dnlnet": "DNL",
    "emanet": "EMANet",
    "encnet": "EncNet",
    "fcn": "FCN",
    "gcnet": "GCNet",
    "isanet": "ISANet",
    "nonlocal_net": "NonLocal",
    "ocrnet": "OCRNet",
    "pointrend": "PointRend",
    "psanet": "PSANet",
    "pspnet": "PSPNet",
    "semantic_fpn": "SemanticFPN",
    "upernet": "UPerNet",
}
PAPERS = {"deeplabv3": "1706.05587", "encnet": "1803.08904", "fcn": "1411.4038", "pspnet": "1612.01105"}
OTHER_NAMES = {"hrnet": "fcn", "sem_fpn": "semantic_fpn", "point_rend": "pointrend"}
OF_FASTFCN = {"ASPPHead": "deeplabv3", "EncHead": "encnet", "PSPHead": "pspnet"}
DATASETS = {
    "Cityscapes": "cityscapes",
    "# HRNet backbone": "cityscapes",
    "# ResNet backbone": "cityscapes",
    "ADE20K": "ade20k",
    "Pascal VOC 2012 + Aug": "voc12aug",
    "Pascal Context": "pascal-context",
    "Pascal Context 59": "pascal-context-59",
    "COCO-Stuff 10k": "coco-stuff10k",
    "COCO-Stuff 164k": "coco-stuff164k",
    "LoveDA": "loveda",
    "Potsdam": "potsdam",
    "Vaihingen": "vaihingen",
    "iSAID": "isaid",
    "Mapillary Vistas v1.2": "mapillary",
}
DEFAULTS = {
    "format": "openmmlab",
    "code_licence": "Apache-2.0",
    "weights_licence": "Apache-2.0",
    "metrics_source": "published by OpenMMLab",
    "split": "val",
    "align_corners": False,
    "optimizer": "SGD",
    "lr": 0.01,
}
COMPOSED = {
    "num_classes",
    "align_corners",
    "norm_cfg",
    "dropout_ratio",
    "loss_decode",
}  # filled in


FILE = re.compile(
    r"(?P<stem>[a-z0-9+]+(?P<d6>_d6)?_(?P<backbone>hr\d+s?|r\d+b?(-d\d+)?(-mg124)?)_.+)"
    r"_\d{8}_\d{6}-(?P<sha256>[0-9a-f]{8})\.pth"
)


def address(row: dict[str, Any]) -> str:
    """Where a row's file is; one row misspells the host."""
    return re.sub(r"^https://[^/]+/", "https://download.openmmlab.com/", row["weights"])


def family(row: dict[str, Any]) -> str:
    """Slug of a row's head."""
    if row["family"] == "fastfcn":  # is a neck here
        return OF_FASTFCN[row["decode_head"]["type"]]
    name: str = row["family"]
    return OTHER_NAMES.get(name, name)


def arguments(head: Any) -> Any:
    """Of a head's config, what ``upstream_config`` cannot know."""
    if isinstance(head, list):
        return [arguments(each) for each in head]
    composed = COMPOSED if head["dropout_ratio"] == 0.1 else COMPOSED - {"dropout_ratio"}
    return {key: value for key, value in head.items() if key not in composed}


def parts(row: dict[str, Any]) -> dict[str, Any]:
    """What rows may share: neck and heads, as the index has them."""
    found = {key: arguments(row[key]) for key in ("decode_head", "auxiliary_head") if row[key]}
    if row["neck"]:
        found = {"neck": row["neck"]} | found
    if family(row) == "pointrend":
        coarse, fine = found["decode_head"]
        told = {key: value for key, value in row["test_cfg"].items() if key != "mode"}
        loss = {"loss_decode": row["decode_head"][0]["loss_decode"]}
        found["decode_head"] = [coarse | loss, fine | {"subdivision": told}]
    return found


def recipe(dataset: str, tags: list[str]) -> dict[str, Any]:
    """Optimiser and learning rate, where they are not the defaults."""
    if "adamw" in tags:
        return {"optimizer": "AdamW", "lr": 0.0005}
    if dataset == "mapillary":
        return {"optimizer": "AdamW", "lr": 0.0001}
    if dataset.startswith("pascal-context"):
        return {"lr": 0.004}
    return {"lr": 0.02} if "b16" in tags else {}


def model_name(slug: str, backbone: str, dataset: str, tags: list[str]) -> str:
    """Name of the table of heads that a row shares with others of its family."""
    width = {"r18": "resnet18", "r18b": "resnet18", "hr18": "hrnet18", "hr18s": "hrnet18", "hr48": "hrnet48"}
    parts = [width.get(backbone.partition("-")[0], "resnet")]
    parts += ["d6"] if "d6" in tags else []
    parts += [mark for mark in ("mg124", "jpu") if mark in backbone]
    parts += ["ade20k"] if (slug, dataset) == ("psanet", "ade20k") else []
    return "-".join(parts)


def read_row(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Id and entry of a row."""
    url = address(row)
    file = FILE.fullmatch(url.rpartition("/")[2])
    if file is None:
        sys.exit(f"{url}: not the name of a published file")
    stem, backbone, dataset = file["stem"], file["backbone"], DATASETS[row["dataset"]]
    schedule = re.findall(r"[_-](\d+k)(?=_|$)", stem)[0]
    config = row["name"]
    for named, meant in (
        (re.findall(r"_((?:hr\d+s?|r\d+b?)(?:-d\d+)?)", config)[0], backbone.removesuffix("-mg124")),
        (re.findall(r"-(\d+k)_", config)[0], schedule),
    ):
        config = config.replace(named, meant, 1)
    batch = row["batch_size"]
    if "4x4_512x1024" in stem:  # four images on each of four devices
        batch, config = 16, config.replace("4xb2", "4xb4")
    if "rsb" in stem:  # trained from other weights of the plain ResNet
        backbone = backbone.replace("r50", "r50b") + "-rsb"

    if row["neck"] and row["neck"]["type"] == "JPU":
        backbone += "-jpu"

    marks = {"d6": file["d6"], "amp": "fp16" in stem, "adamw": "adamw" in stem}
    marks["b16"] = "b16" in stem or batch > row["batch_size"]
    tags = [tag for tag, on in marks.items() if on]
    crop = "x".join(map(str, row["crop_size"]))
    id = "-".join([f"{family(row)}_{backbone}_{dataset}-{crop}_{schedule}", *tags])
    *_, head = row["decode_head"] if isinstance(row["decode_head"], list) else [row["decode_head"]]
    slides = row["test_cfg"]["mode"] == "slide"
    entry = {
        "model": model_name(family(row), backbone, dataset, tags),
        "backbone": backbone,
        "dataset": dataset,
        "split": "test" if dataset == "coco-stuff10k" else None,
        "crop": row["crop_size"],
        "align_corners": head["align_corners"] or None,
        "window": row["test_cfg"]["crop_size"] if slides else None,
        "stride": row["test_cfg"]["stride"] if slides else None,
        "iterations": int(schedule.removesuffix("k")) * 1000,
        "batch": batch,
        **recipe(dataset, tags),
        "memory_gb": row["train_memory_gb"],
        "metrics": {"mIoU": row["miou"]} | ({"mIoU_ms": row["miou_ms_flip"]} if row["miou_ms_flip"] else {}),
        "url": url,
        "sha256": file["sha256"],
        "config": config,
    }
    told = {"iterations": row["max_iters"], "batch": row["batch_size"], "url": row["weights"], "config": row["name"]}
    for key, value in told.items():
        if value != entry[key]:
            print(f"{id}: {key} {value} -> {entry[key]}")
    return id, entry


def write_family(slug: str, rows: list[dict[str, Any]]) -> None:
    """Write one index file."""
    entries: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}
    for row in rows:
        id, entry = read_row(row)
        model = parts(row)
        if id in entries or models.setdefault(entry["model"], model) != model:
            sys.exit(f"{id}: stands twice, or its heads differ from those of {entry['model']}")
        entries[id] = entry
    defaults = dict(DEFAULTS)
    if len(models) == 1:
        defaults["model"] = next(iter(models))
        for entry in entries.values():
            entry["model"] = None
    path = index.file_of("semantic", slug)
    own = path.read_text().partition(f"\n{writing.TRAINED_HERE}\n") if path.exists() else ("", "", "")
    kept = f'which keeps what stands below "{writing.TRAINED_HERE}"'
    paper = f"https://arxiv.org/abs/{PAPERS[slug]}" if slug in PAPERS else rows[0]["paper"]
    text = [
        f"# Published weights, by scripts/import_openmmlab.py, {kept}.\n",
        f'name = "{FAMILIES[slug]}"\npaper = "{paper}"\n',
        writing.format_table("defaults", defaults),
        *(writing.format_table(f"model.{name}", model) for name, model in models.items()),
        *(writing.format_table(f"entry.{id}", entry) for id, entry in entries.items()),
    ]
    path.write_text("\n".join(text) + own[1] + own[2])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = json.loads(Path(sys.argv[1]).read_text())
    for slug in FAMILIES:
        write_family(slug, [row for row in rows if family(row) == slug])

    entries = {entry.url: entry for entry in index.check()}
    for row in rows:
        entry = entries[address(row)]
        for key, value in upstream_config(entry).items():
            if value != row[key]:
                print(f"{entry.id}: {key} of its own file, not that of {row['name']}")
    print(f"{len(rows)} entries")


if __name__ == "__main__":
    main()
