"""Write further published models into ``zoo/index/semantic`` and their backbones into ``zoo/backbones.toml``.

    python scripts/import_more.py published_more.json

Run it after ``import_openmmlab.py``. What both write stands above the line ``# Trained here`` of an index file; this
part below a line of its own. The file name in a row's address decides over its other fields: two names stand twice.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lightning_app.util.errors import InputError
from lightning_app.weights.openmmlab.backbones import backbone_arguments, rule_of
from lightning_app.weights.openmmlab.heads import RULES
from lightning_app.weights.openmmlab.published import upstream_config
from zoo import index, writing
from zoo.datasets import ROOT

MORE = "# More published weights, by scripts/import_more.py"
HEADS = {
    "ASPPHead": ("deeplabv3", "DeepLabV3", "https://arxiv.org/abs/1706.05587"),
    "DPTHead": ("dpt", "DPT", "https://arxiv.org/abs/2103.13413"),
    "DepthwiseSeparableASPPHead": ("deeplabv3plus", "DeepLabV3Plus", "https://arxiv.org/abs/1802.02611"),
    "FCNHead": ("fcn", "FCN", "https://arxiv.org/abs/1411.4038"),
    "FPNHead": ("semantic_fpn", "SemanticFPN", "https://arxiv.org/abs/1901.02446"),
    "IterativeDecodeHead": ("knet", "KNet", "https://arxiv.org/abs/2106.14855"),
    "LRASPPHead": ("lraspp", "LRASPP", "https://arxiv.org/abs/1905.02244"),
    "Mask2FormerHead": ("mask2former", "Mask2Former", "https://arxiv.org/abs/2112.01527"),
    "MaskFormerHead": ("maskformer", "MaskFormer", "https://arxiv.org/abs/2107.06278"),
    "PSPHead": ("pspnet", "PSPNet", "https://arxiv.org/abs/1612.01105"),
    "SETRMLAHead": ("setr_mla", "SETRMLA", "https://arxiv.org/abs/2012.15840"),
    "SETRUPHead": ("setr", "SETR", "https://arxiv.org/abs/2012.15840"),
    "SegformerHead": ("segformer", "SegFormer", "https://arxiv.org/abs/2105.15203"),
    "SegmenterMaskTransformerHead": ("segmenter", "Segmenter", "https://arxiv.org/abs/2105.05633"),
    "UPerHead": ("upernet", "UPerNet", "https://arxiv.org/abs/1807.10221"),
}
DATASETS = {"Cityscapes": "cityscapes", "ADE20K": "ade20k", "COCO-Stuff 164k": "coco-stuff164k"}
TRAINING = {"init_cfg", "drop_path_rate", "drop_rate", "attn_drop_rate", "norm_eval", "with_cp", "frozen_stages"}
TRAINING |= {"pretrained", "init_values", "layer_scale_init_value", "train_cfg", "loss_cls", "loss_mask", "loss_dice"}
OPTIMIZERS = {  # beginning of the backbone's short name -> optimiser and learning rate of the configuration
    "beit-b": ("AdamW", 3e-5),
    "beit-l": ("AdamW", 2e-5),
    "bisenetv1": ("SGD", 0.025),
    "convnext": ("AdamW", 1e-4),
    "deit": ("AdamW", 6e-5),
    "icnet": ("SGD", 0.01),
    "m-v": ("SGD", 0.01),
    "mae": ("AdamW", 1e-4),
    "mit": ("AdamW", 6e-5),
    "s101": ("SGD", 0.01),
    "swin": ("AdamW", 6e-5),
    "vit-b16": ("AdamW", 6e-5),
}  # the others' entries tell none
NVIDIA = "NVIDIA Source Code License for SegFormer: non-commercial"
PLAIN = {"type": "CrossEntropyLoss", "use_sigmoid": False}


def told(value: Any) -> Any:
    """Without what training alone needs, and without None, which TOML does not have."""
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items() if key not in TRAINING and each is not None}
    return [told(each) for each in value] if isinstance(value, list) else value


def head(config: dict[str, Any], weight: float) -> dict[str, Any]:
    """Of a head's config, what ``upstream_config`` does not fill in."""
    if "kernel_generate_head" in config:
        return told(config)
    filled = {"num_classes": config.get("num_classes"), "norm_cfg": {"type": "SyncBN", "requires_grad": True}}
    filled |= {"dropout_ratio": 0.1, "align_corners": False, "loss_decode": PLAIN | {"loss_weight": weight}}
    return {key: told(value) for key, value in config.items() if key not in filled or value != filled[key]}


def corrected(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with the config that its file was made with; two rows have a neighbour's."""
    file = row["weights"].rpartition("/")[2]
    other = {
        "bisenetv1_r101-d32_lr5e-3": "bisenetv1_r101-d32-in1k-pre_4xb4-160k_coco-stuff164k-512x512",
        "twins_svt-l_uperhead": "twins_svt-l_fpn_fpnhead_8xb4-80k_ade20k-512x512",
    }
    for beginning, name in other.items():
        if file.startswith(beginning):
            backbone = next(each for each in rows if each["name"] == name)["backbone"]
            config = row["name"].replace("r50-d32-in1k-pre", "r101-d32").replace("pcpvt-l", "svt-l")
            parts = {key: row[key] for key in ("decode_head", "auxiliary_head")}
            if "svt" in file:  # of its own widths
                widths = list(backbone["embed_dims"])
                parts["decode_head"] = parts["decode_head"] | {"in_channels": widths}
                parts["auxiliary_head"] = parts["auxiliary_head"] | {"in_channels": widths[2]}
            return {**row, **parts, "backbone": backbone, "name": config}
    return row


def backbone_slug(row: dict[str, Any]) -> str:
    """Short name of the row's backbone."""
    config, family, name = row["backbone"], row["family"], row["name"]
    kind = config["type"]
    match kind:
        case "ResNetV1c" | "ResNet":
            stride = 8 if list(config.get("strides", ())) == [1, 2, 1, 1] else 32
            return f"r{config['depth']}{'b' if kind == 'ResNet' else ''}-d{stride}" + "-plain" * (stride == 32)
        case "ICNet" | "BiSeNetV1":
            inner = config["backbone_cfg"]
            return f"{family}-r{inner['depth']}"
        case "ResNeSt":
            return f"s{config['depth']}-d8"
        case "MobileNetV2":
            return "m-v2-d8"
        case "MobileNetV3":
            return "m-v3-d8" if config["arch"] == "large" else "m-v3s-d8"
        case "SwinTransformer":
            size = {96: "s" if 18 in config["depths"] else "t", 128: "b", 192: "l"}[config["embed_dims"]]
            return f"swin-{size}" + ("-w12" if config["window_size"] == 12 else "")
        case "mmpretrain.ConvNeXt":
            return "convnext-" + {"tiny": "t", "small": "s", "base": "b", "large": "l", "xlarge": "xl"}[config["arch"]]
        case "mmpretrain.PoolFormer":
            return f"poolformer-{config['arch']}"
        case "MixVisionTransformer":
            return re.findall(r"mit-b\d", name)[0]
        case "PCPVT" | "SVT":
            size = {"PCPVT": {4: "s", 18: "b", 27: "l"}, "SVT": {64: "s", 96: "b", 128: "l"}}[kind]
            key = (
                config["embed_dims"][0] if kind == "SVT" else max(config["depths"]) if max(config["depths"]) > 6 else 4
            )
            return f"{kind.lower()}-{size[key]}"
        case "BEiT" | "MAE":
            return f"{kind.lower()}-{'l' if config['embed_dims'] == 1024 else 'b'}"
    size = {192: "t", 384: "s", 768: "b", 1024: "l"}[config["embed_dims"]]
    deit = "deit" if "deit" in name else "vit"
    slug = f"{deit}-{size}16" + ("-ln" if family == "vit" and config.get("final_norm") else "")
    image = config["img_size"][0] if isinstance(config["img_size"], list) else config["img_size"]
    mla = "-mla" if row["neck"] and row["neck"]["type"] == "MLANeck" else ""
    return slug if family == "vit" else f"{slug}-{family}{mla}" + (f"-{image}" if family == "setr" else "")


def tags(row: dict[str, Any], file: str) -> list[str]:
    """What tells two ids of one backbone, dataset, crop and schedule apart."""
    marks = {
        "naive": "naive" in file,
        "pup": "_pup" in file,
        "mln": "_mln" in file,
        "deeplabv3": row["family"] == "knet" and "deeplabv3" in file,
        "fcn": row["family"] == "knet" and "_fcn" in file,
        "pspnet": row["family"] == "knet" and "pspnet" in file,
        "upernet": row["family"] == "knet" and "upernet" in file,
        "in1k": "in1k" in file or "384x384_1K" in file,
        "in22k": "in22k" in file or "_22K" in file,
        "scratch": "scratch" in file,
        "b8": "_b8_" in file,
        "b32": "4x8_1024" in file,
    }
    return [tag for tag, on in marks.items() if on]


def read(row: dict[str, Any]) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Slug of the head, id, entry, and the tables that other rows may share."""
    *_, decode = row["decode_head"] if isinstance(row["decode_head"], list) else [row["decode_head"]]
    slug, file = HEADS[decode["type"]][0], row["weights"].rpartition("/")[2]
    dataset, backbone = DATASETS[row["dataset"]], backbone_slug(row)
    schedules = re.findall(r"[_-](\d+k)(?=[_-])", file)
    steps = int(schedules[0][:-1]) * 1000 if schedules else row["max_iters"]
    middle = "-".join([re.sub(r"-(segmenter|dpt|setr.*|plain)$", "", backbone), *tags(row, file)])
    crop = "x".join(map(str, row["crop_size"]))
    id = f"{slug}_{middle}_{dataset}-{crop}_{steps // 1000}k"
    slides = row["test_cfg"]["mode"] == "slide"
    memory = row["train_memory_gb"]
    entry = {
        "model": None,
        "backbone": backbone,
        "dataset": dataset,
        "crop": row["crop_size"],
        "window": row["test_cfg"]["crop_size"] if slides else None,
        "stride": row["test_cfg"]["stride"] if slides else None,
        "iterations": steps,
        "batch": row["batch_size"],
        **recipe(slug, backbone, file),
        "memory_gb": memory if memory is None or memory < 1000 else memory / 1000,  # one row counts in MB
        "metrics": {"mIoU": row["miou"]} | ({"mIoU_ms": row["miou_ms_flip"]} if row["miou_ms_flip"] else {}),
        "url": row["weights"],
        "sha256": re.findall(r"-([0-9a-f]{8})\.pth", file)[0],
        "weights_licence": NVIDIA if row["backbone"]["type"] == "MixVisionTransformer" else None,
        "config": row["name"],
        "preprocess": {key: row["preprocess"][key] for key in ("mean", "std")}
        if row["preprocess"]["mean"][0] == 127.5
        else None,
    }
    extra = row["auxiliary_head"]
    heads = [head(each, 0.4) for each in (extra if isinstance(extra, list) else [extra] if extra else [])]
    model = {
        "neck": told(row["neck"]) if row["neck"] else None,
        "decode_head": head(decode, 1.0),
        "auxiliary_head": heads if len(heads) > 1 else heads[0] if heads else None,
    }
    return slug, id, entry, {key: value for key, value in model.items() if value is not None}


def recipe(slug: str, backbone: str, file: str) -> dict[str, Any]:
    """Optimiser and learning rate, where they are known."""
    if "lr5e-3" in file:
        return {"optimizer": "SGD", "lr": 0.005}
    if slug in ("knet", "mask2former", "maskformer", "semantic_fpn", "setr", "segmenter"):
        return {"optimizer": "AdamW"} if "adamw" in file else {}
    optimizer, lr = next((each for start, each in OPTIMIZERS.items() if backbone.startswith(start)), (None, None))
    return {"optimizer": optimizer, "lr": lr}


def backbone_table(row: dict[str, Any]) -> dict[str, Any]:
    """A backbone in our words and in OpenMMLab's."""
    rule = rule_of(row["backbone"])
    read = (rule.read | {"type"}) - {"pretrain_img_size"}  # the others are known at one value
    upstream = {key: value for key, value in told(row["backbone"]).items() if key in read}
    if row["backbone"]["type"] in ("ResNet", "ResNetV1c"):
        filled = {"num_stages": 4, "out_indices": [0, 1, 2, 3], "style": "pytorch", "contract_dilation": True}
        filled |= {"strides": [1, 2, 2, 2], "dilations": [1, 1, 1, 1]}
        upstream.pop("norm_cfg", None)  # whether it learns is for training
        upstream = {key: value for key, value in upstream.items() if value != filled.get(key)}
    biased = {"patch_bias": True} if row["backbone"]["type"] == "VisionTransformer" else {}  # as in files of 0.x
    arguments = backbone_arguments({**row["backbone"], **biased})
    stride = arguments.get("output_stride")
    if stride is None:
        stride = {"VisionTransformer": 16, "BEiT": 16, "MAE": 16, "ICNet": 8, "BiSeNetV1": 8}.get(upstream["type"], 32)
    changes = dict(arguments.get("changes", {}))
    name, own = arguments["name"], rule.cls.__name__
    if own not in ("TimmBackbone", "MiT"):
        name = f"{own} on {name}"
    return {"name": name, "output_stride": stride, "changes": changes or None, "upstream": upstream}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())
    known = [row for row in rows if (row["decode_head"] or {}).get("type") in RULES]
    backbones: dict[str, dict[str, Any]] = {}
    files: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
    there, _, rest = (ROOT / "backbones.toml").read_text().partition(f"\n{MORE}\n")
    below = rest[rest.find("\n# ") :] if "\n# " in rest else ""  # other sections, each with a line of its own above
    for row in (corrected(row, rows) for row in known):
        slug, id, entry, model = read(row)
        try:
            table = backbone_table(row)
        except InputError as error:
            sys.exit(f"{row['name']}: {error}")
        if f"[{entry['backbone']}]" not in there and backbones.setdefault(entry["backbone"], table) != table:
            sys.exit(f"{id}: another backbone than that of {entry['backbone']}: {table} {backbones[entry['backbone']]}")
        if id in files.setdefault(slug, {}):
            sys.exit(f"{id}: stands twice ({row['name']})")
        files[slug][id] = entry, model
    text = "\n".join(writing.format_table(slug, table) for slug, table in backbones.items())
    (ROOT / "backbones.toml").write_text(f"{there.rstrip()}\n\n{MORE}\n\n{text}{below}")
    for slug, entries in files.items():
        write(slug, entries)
    found = {entry.url: entry for entry in index.check()}
    for row in known:
        for key, value in upstream_config(found[row["weights"]]).items():
            same = key == "backbone" and backbone_arguments(value) == backbone_arguments(row[key])
            if not same and told(value) != told(row[key]):
                print(f"{found[row['weights']].id}: {key} differs from {row['name']}")
    print(f"{len(known)} of {len(rows)} entries")


def write(slug: str, entries: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Write this part of one index file."""
    path = index.file_of("semantic", slug)
    name, paper = next(each[1:] for each in HEADS.values() if each[0] == slug)
    text = path.read_text() if path.exists() else f'name = "{name}"\npaper = "{paper}"\n'
    above, mark, own = text.partition(f"\n{writing.TRAINED_HERE}\n")
    above = above.partition(f"\n{MORE}\n")[0].rstrip()
    defaults = {
        "format": "openmmlab",
        "code_licence": "Apache-2.0",
        "weights_licence": "Apache-2.0",
        "metrics_source": "published by OpenMMLab",
        "split": "val",
        "align_corners": False,
    }
    if "[defaults]" not in above:
        above = f"{above}\n\n{writing.format_table('defaults', defaults)}".rstrip()
    shared: dict[str, dict[str, Any]] = {}
    for entry, model in entries.values():
        named = next((key for key, other in shared.items() if other == model), None)
        if named is None:
            base = entry["backbone"]
            named = base if base not in shared and f"[model.{base}]" not in above else f"{base}-{len(shared)}"
            shared[named] = model
        entry["model"] = named
    parts = [
        above,
        f"\n{MORE}\n",
        *(writing.format_table(f"model.{key}", model) for key, model in shared.items()),
        *(writing.format_table(f"entry.{id}", entry) for id, (entry, _) in entries.items()),
    ]
    path.write_text("\n".join(parts) + mark + own)


if __name__ == "__main__":
    main()
