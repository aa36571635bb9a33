"""Compare published models as mmsegmentation builds them with ours.

Needs mmsegmentation 1.2.2 in a scratch environment, but no compiled operators: PSANet's mask, which mmcv has in no
other form, is written here in plain PyTorch.

    pip install --no-deps mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0
    pip install addict yapf termcolor opencv-python-headless prettytable ftfy regex
    PYTHONPATH=. python scripts/compare_mmseg.py ccnet_r50-d8_cityscapes-769x769_40k ...    # ids, or --all
    PYTHONPATH=. python scripts/compare_mmseg.py --names tests/goldens/openmmlab_names.json.gz
"""

import argparse
import copy
import gzip
import importlib.machinery
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from lightning_app.tasks.semantic.inference import predict
from lightning_app.weights.openmmlab.convert import load_checkpoint, protocol_of
from lightning_app.weights.openmmlab.published import upstream_config

SIZE = (97, 129)


def psa_mask(psa_type: str, mask_size: tuple[int, int]) -> Any:
    """PSAMask of mmcv: attention of each position to all others, cut from a mask centred on it."""

    def apply(mask: Tensor) -> Tensor:
        batch, _, height, width = mask.shape
        rows, columns = (torch.arange(side) for side in (height, width))
        down = rows[:, None] - rows[None, :] + (mask_size[0] - 1) // 2  # [p, q]: row of p in the mask of q
        across = columns[:, None] - columns[None, :] + (mask_size[1] - 1) // 2
        inside = ((down >= 0) & (down < mask_size[0]))[:, None, :, None]
        inside = inside & ((across >= 0) & (across < mask_size[1]))[None, :, None, :]
        index = down.clamp(0, mask_size[0] - 1)[:, None, :, None] * mask_size[1]
        index = index + across.clamp(0, mask_size[1] - 1)[None, :, None, :]
        flat = mask.flatten(2)
        index, inside = index.reshape(height * width, -1), inside.reshape(height * width, -1)
        collected = flat.gather(1, index[None].expand(batch, -1, -1)) * inside
        if psa_type == "distribute":
            collected = collected.transpose(1, 2)
        return collected.reshape(batch, height * width, height, width)

    return apply


def prepare_mmseg() -> Any:
    """mmsegmentation's builder, without mmcv's compiled extension."""

    def operator(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None

    extension = types.ModuleType("mmcv._ext")
    extension.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    extension.__getattr__ = operator  # type: ignore[method-assign]
    sys.modules["mmcv._ext"] = extension
    warnings.simplefilter("ignore")
    import mmseg.models  # noqa: F401
    from mmengine.registry import init_default_scope
    from mmseg.models.decode_heads import psa_head
    from mmseg.registry import MODELS

    psa_head.PSAMask = psa_mask
    init_default_scope("mmseg")
    return MODELS


def build_mmseg(models: Any, row: dict[str, Any]) -> nn.Module:
    """The published model, evaluated with plain batch norm."""
    config = {key: row[key] for key in ("backbone", "neck", "decode_head", "auxiliary_head", "test_cfg") if row[key]}
    if isinstance(row["decode_head"], list):
        config["num_stages"] = len(row["decode_head"])
    config["backbone"] = {key: value for key, value in config["backbone"].items() if key != "init_cfg"}
    config = json.loads(json.dumps(config).replace("SyncBN", "BN"))
    from mmengine.config import ConfigDict

    model: nn.Module = models.build(ConfigDict(type=row["segmentor"], train_cfg={}, **config))
    return model.eval()


def randomise(model: nn.Module) -> None:
    """Weights that keep the signal's size, none of them 0 or 1 where that would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name.endswith("bases"):
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.6, 1.6, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("weight"):
            tensor.uniform_(0.4, 0.8, generator=generator)
        else:
            tensor.normal_(0, 0.2, generator=generator)


@torch.no_grad()
def compare(models: Any, id: str) -> dict[str, float]:
    """Largest deviations, relative to the standard deviation of the logits."""
    row = upstream_config(zoo.get(id))
    slide = row["test_cfg"]["mode"] == "slide"
    if slide:  # windows that the small image holds several of
        row["test_cfg"] |= {"crop_size": [65, 81], "stride": [43, 50]}
    theirs = build_mmseg(models, row)
    randomise(theirs)
    ours = load_checkpoint(theirs.state_dict(), row).double()
    theirs = theirs.double()
    normalised = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, std = (
        torch.tensor(row["preprocess"][key], dtype=torch.float64)[:, None, None] / 255 for key in ("mean", "std")
    )
    meta = [{"img_shape": SIZE, "ori_shape": SIZE, "pad_shape": SIZE}]
    whole = theirs.encode_decode(normalised, copy.deepcopy(meta))
    images = normalised * std + mean
    found = {"whole": (ours(images) - whole).abs().max() / whole.std()}
    if slide:
        windows = theirs.slide_inference(normalised, meta)
        found["slide"] = (predict(ours, images, SIZE, protocol_of(row)) - windows).abs().max() / whole.std()
    if ours.auxiliary is not None:
        extra = theirs.auxiliary_head(theirs.extract_feat(normalised))
        found["auxiliary"] = (ours.auxiliary(ours.features(images)) - extra).abs().max() / extra.std()
    return {key: float(value) for key, value in found.items()}


def write_names(models: Any, path: Path) -> None:
    """Names and shapes of the tensors of every part that the index names, as mmsegmentation gives them."""
    parts: dict[str, dict[str, list[int]]] = {}
    for entry in zoo.list_entries():
        if entry.format != "openmmlab":
            continue
        row = upstream_config(entry)
        keys = {name: part_key(row[name]) for name in ("backbone", "decode_head", "auxiliary_head") if row[name]}
        if set(keys.values()) <= parts.keys():
            continue
        state = build_mmseg(models, row).state_dict()
        for name, key in keys.items():
            prefix = f"{name}."
            parts[key] = {
                each.removeprefix(prefix): list(t.shape) for each, t in state.items() if each.startswith(prefix)
            }
        print(entry.id, len(parts), flush=True)
    path.write_bytes(gzip.compress(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode(), mtime=0))


def part_key(config: Any) -> str:
    """What a part's tensors depend on."""
    text = json.dumps(config, sort_keys=True)
    drop = ("loss_decode", "loss_se_decode", "sampler", "align_corners", "init_cfg", "dropout_ratio", "norm_cfg")
    kept = json.loads(text, object_hook=lambda each: {key: value for key, value in each.items() if key not in drop})
    return json.dumps(kept, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", help="entries of the zoo")
    parser.add_argument("--all", action="store_true", help="every entry whose network no earlier one has")
    parser.add_argument("--names", type=Path, help="write the names and shapes of all parts to this file")
    options = parser.parse_args()
    models = prepare_mmseg()
    if options.names:
        write_names(models, options.names)
    ids, seen = list(options.ids), set()
    for entry in zoo.list_entries() if options.all else []:
        row = upstream_config(entry)
        if (key := json.dumps([row["backbone"], row["decode_head"], row["auxiliary_head"]])) not in seen:
            seen.add(key)
            ids.append(entry.id)
    for id in ids:
        print(id, " ".join(f"{key} {value:.1e}" for key, value in compare(models, id).items()), flush=True)


if __name__ == "__main__":
    main()
