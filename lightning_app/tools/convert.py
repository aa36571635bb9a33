"""``contextzoo zoo convert``: a checkpoint that mmsegmentation trained as a file that every command takes."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

import zoo
from lightning_app.data.facts import Colour, palette_from_hex, voc_palette
from lightning_app.reading import tensor_files
from lightning_app.reading.unpickle import state_dict, unpickle
from lightning_app.tasks.semantic.weights import SemanticFacts
from lightning_app.tools.parser import Parser
from lightning_app.util.errors import InputError
from lightning_app.util.files import check_file, replacing
from lightning_app.weights.description import Data, Description
from lightning_app.weights.load import load
from lightning_app.weights.openmmlab import convert as openmmlab
from lightning_app.weights.openmmlab import knet, mmseg_config
from lightning_app.weights.openmmlab.heads import joined
from lightning_app.weights.openmmlab.published import evaluation_size, upstream_config
from lightning_app.weights.parts import new_segmentor
from lightning_app.weights.transfer import describe
from zoo import ZooEntry, ZooError
from zoo.datasets import datasets


def main(args: Sequence[str]) -> int:
    """Convert one checkpoint."""
    options = _parse(args)
    to = options.to or options.checkpoint.with_suffix(".safetensors")
    if to.exists():
        raise InputError(f"{to} is there already: move it, or give another --to")
    entry = _entry(options.like) if options.like else None
    config = upstream_config(entry) if entry else mmseg_config.read_model(options.config)
    content = unpickle(options.checkpoint)
    state = cleaned(state_dict(content, options.checkpoint))
    try:
        config = _of_classes(dict(openmmlab.as_the_weights_have_it(config, state)), state, options.checkpoint)
        count = joined(config["decode_head"])["num_classes"]
        classes, palette = _classes(options, entry, content, count)
        parts = openmmlab.parts_of(config)
        model = new_segmentor(parts, count, to.stem)
        if not config.get("auxiliary_head"):
            state = {name: each for name, each in state.items() if not name.startswith("auxiliary_head.")}
        openmmlab.load_strictly(model, openmmlab.rename(config, state), what=str(options.checkpoint))
        fit = evaluation_size(entry) if entry else config.get("fit")
        protocol = replace(openmmlab.protocol_of(config), fit=fit)
    except (AttributeError, KeyError, TypeError, IndexError) as error:  # a configuration of another make
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{options.config or options.like} does not describe a model that is known ({what})"
        ) from error
    dataset = datasets()[entry.dataset] if entry else None
    same = dataset and tuple(classes) == dataset.classes
    description = Description(
        name=to.stem,
        task="semantic",
        model=parts,
        facts=SemanticFacts(tuple(classes), palette, protocol),
        data=Data(dataset.data, dataset.arguments) if dataset and same else Data(),
    )
    with replacing(to) as part:
        tensor_files.write(part, model.state_dict(), description.as_header())
    print(f"{to}: {describe(load(to))}, {count} classes: {', '.join(classes[:4])}{' ...' if count > 4 else ''}")
    print(f"contextzoo segment photo.jpg --weights {to}")
    return 0


def cleaned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors without wrappers' prefixes, the copies of an averaging hook and preprocessing constants."""
    for prefix in ("module.", "model.", "network.", "segmentor."):
        if any(name.startswith((f"{prefix}backbone.", f"{prefix}model.")) for name in state):
            state = {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
    others = ("ema_", "data_preprocessor.", "steps")
    return {name: each for name, each in state.items() if not name.startswith(others)}


def _entry(id: str) -> ZooEntry:
    try:
        entry = zoo.get(id)
    except ZooError as error:
        raise InputError(str(error)) from None
    if entry.format != "openmmlab":
        raise InputError(f"--like {id}: no weights of OpenMMLab's (contextzoo zoo list)")
    return entry


CLASSIFIERS = {  # where it is not conv_seg: its name, which dimension counts the classes, and what else is counted
    "IterativeDecodeHead": (f"{knet.FIRST}.conv_seg.weight", 0, 0),
    "Mask2FormerHead": ("cls_embed.bias", 0, 1),  # "nothing" is one too
    "MaskFormerHead": ("cls_embed.bias", 0, 1),
    "SegmenterMaskTransformerHead": ("cls_emb", 1, 0),
}


def _of_classes(config: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The config with as many classes as the file's classifiers have."""
    stages = config["decode_head"]
    last = f"decode_head.{len(stages) - 1}." if isinstance(stages, list) else "decode_head."
    kind = (stages[-1] if isinstance(stages, list) else stages)["type"]
    name, dimension, others = CLASSIFIERS.get(kind, ("conv_seg.weight", 0, 0))
    classifier = state.get(f"{last}{name}")
    if classifier is None or classifier.dim() <= dimension:
        raise InputError(f"{path} has no {last}{name}: mmsegmentation did not write it")
    fact = {"num_classes": classifier.shape[dimension] - others}
    heads = [stage | fact for stage in stages] if isinstance(stages, list) else stages | fact
    if isinstance(heads, dict) and (first := heads.get(knet.FIRST)):
        heads |= {knet.FIRST: first | fact}
    extra = config.get("auxiliary_head")
    extra = [each | fact for each in extra] if isinstance(extra, list) else extra | fact if extra else None
    return {**config, "decode_head": heads, "auxiliary_head": extra}


def _classes(
    options: argparse.Namespace, entry: ZooEntry | None, content: Any, count: int
) -> tuple[list[str], tuple[Colour, ...]]:
    """Names and colours of the classes: as typed, as in the file, as the entry has them."""
    meta = content.get("meta") if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    told = meta.get("dataset_meta")
    told = told if isinstance(told, dict) else {}
    dataset = datasets()[entry.dataset] if entry else None
    found = [
        _names(options.classes) if options.classes else None,
        told.get("classes"),
        meta.get("CLASSES"),
        dataset and dataset.classes,
    ]
    lists = [list(each) for each in found if isinstance(each, list | tuple) and all(isinstance(x, str) for x in each)]
    if options.classes and len(lists[0]) != count:
        raise InputError(f"--classes has {len(lists[0])} names, the checkpoint {count} classes")
    names = next((each for each in lists if len(each) == count), None)
    if names is None:
        raise InputError(
            f"{options.checkpoint} does not say what its {count} classes are: give --classes FILE or a,b,c"
        )
    own = palette_from_hex(" ".join(dataset.palette)) if dataset else None
    for palette in (told.get("palette"), meta.get("PALETTE"), own):
        if isinstance(palette, list | tuple) and len(palette) == count and all(map(_is_colour, palette)):
            return names, tuple((red, green, blue) for red, green, blue in palette)
    return names, voc_palette(count)


def _is_colour(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 <= x < 256 for x in value)


def _names(given: str) -> list[str]:
    """Names from a file, one a line, or separated by commas."""
    path = Path(given)
    if "," in given or not path.suffix:
        return [name.strip() for name in given.split(",") if name.strip()]
    check_file(path)
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"--classes {path} is no text") from None


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo zoo convert",
        description="Convert a checkpoint that mmsegmentation trained; nothing in it or its configuration is executed.",
        epilog="example: contextzoo zoo convert iter_40000.pth --like ccnet_r50-d8_cityscapes-512x1024_40k",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="FILE", help=".pth of mmsegmentation 0.x or 1.x")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--like", metavar="ID", help="published weights of the same architecture (contextzoo zoo list)")
    how.add_argument("--config", type=Path, metavar="FILE", help="its config.py or .json, read as data")
    add("--classes", metavar="FILE|a,b,c", help="names in label order; default: as the checkpoint says")
    add("--to", type=Path, metavar="FILE", help="default: beside it, with the suffix .safetensors")
    options = parser.parse_args(args)
    if options.to and options.to.suffix != ".safetensors":
        parser.error(f"--to {options.to}: a name that ends in .safetensors")
    return options
