"""Between zoo and models: weights -> a segmentor that knows its classes and protocol; one's own weights -> an entry."""

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import zoo
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.facts import default_palette, palette_from_hex
from lightning_app.reading import checkpoints, specs, tensor_files
from lightning_app.registry import Entry as HeadEntry
from lightning_app.runs import folders as runs
from lightning_app.tasks.semantic.metrics import Scores
from lightning_app.tasks.semantic.network import ModelInfo, Segmentor
from lightning_app.util.errors import InputError, closest, input_error
from lightning_app.util.files import check_file
from lightning_app.weights import description as describing
from lightning_app.weights.description import MODEL, MOST_CLASSES, Description, new_segmentor
from lightning_app.weights.openmmlab import convert as openmmlab
from lightning_app.weights.openmmlab.published import evaluation_size, upstream_config
from zoo import ZooEntry, ZooError, download, index, writing
from zoo.cache import CHECKOUT
from zoo.entry import SHIPPED, Dataset

HALVES: Final = (torch.float16, torch.bfloat16)
HEADER: Final = "contextzoo"  # of a safetensors file's metadata: what describes the model, as JSON
PLACES: Final = ("root", "predict_folder")  # arguments of a datamodule that hold for one machine
SHIPS: Final = CHECKOUT / SHIPPED  # where weights of one's own come with the repository
SUFFIXES: Final = (".ckpt", ".safetensors", ".pth", ".pt")


def load(weights: str | Path, *, device: str | torch.device = "cpu") -> Segmentor:
    """A segmentor in evaluation mode, with its ``ModelInfo`` as ``info``.

    Args:
        weights: an id of the zoo (fetched and verified); a checkpoint of ``contextzoo fit`` (EMA weights where the run
            kept them), the name or folder of its run, best or last of the newest run; a file that ``contextzoo zoo
            publish`` wrote, or its folder; or a published OpenMMLab file, which is recognised by its name.

    Raises:
        InputError: no such id or file, or a file that does not say how to build its model.
    """
    path, entry = _find(weights)
    return _load_file(path, entry).to(device).eval()


def find(weights: str | Path) -> Path:
    """The file of the weights, fetched and verified where they are an id.

    Raises:
        InputError: no such id or file.
    """
    return _find(weights)[0]


def _find(weights: str | Path) -> tuple[Path, ZooEntry | None]:
    path = Path(weights)
    if path.suffix in SUFFIXES:
        check_file(path)
        return path, None
    word = str(weights)
    if not is_known(word):
        if found := runs.weights_of(word):
            return found, None
        if close := closest(word, runs.names()):
            raise InputError(f'No weights "{word}" in the zoo or in {runs.RUNS}/. Did you mean the run "{close[0]}"?')
    try:
        entry = zoo.get(word)
        return download.fetch(entry, say=lambda line: print(line, file=sys.stderr)), entry
    except ZooError as error:
        raise InputError(str(error)) from None


def _load_file(path: Path, entry: ZooEntry | None) -> Segmentor:
    if path.suffix == ".ckpt":
        return build(*read_checkpoint(path))
    entry = entry or _entry_of(path)
    if entry and entry.format == "openmmlab":
        return _from_openmmlab(path, entry)
    if path.suffix == ".safetensors":
        model = build(*read_published(path))
        return _named(model, entry) if entry else model
    raise InputError(
        f"{path}: no weights of the zoo have a file of that name, so their architecture is not known. Keep the name it "
        "was published under, such as ...-4123f401.pth, or call it ID.pth (contextzoo zoo list)"
    )


def _entry_of(path: Path) -> ZooEntry | None:
    """The entry whose published file, or whose file in the cache, is called like ``path``."""
    for entry in zoo.list_entries():
        if path.stem in (entry.id, entry.url.rpartition("/")[2].rpartition(".")[0]):
            return entry
    return None


def _from_openmmlab(path: Path, entry: ZooEntry) -> Segmentor:
    config = upstream_config(entry)
    model = openmmlab.load_checkpoint(path, config)
    dataset = index.datasets()[entry.dataset]
    data = {"class_path": dataset.data, "init_args": dict(dataset.arguments)}
    protocol = replace(openmmlab.protocol_of(config), fit=evaluation_size(entry))
    model.info = ModelInfo(
        entry.id,
        dataset.classes,
        palette_from_hex(" ".join(dataset.palette)),
        protocol,
        data,
        parts=openmmlab.parts_of(config),
    )
    return _named(model, entry)


def _named(model: Segmentor, entry: ZooEntry) -> Segmentor:
    """The model under its id, with the index's figure."""
    assert model.info is not None
    source = f"{entry.miou_source}, {entry.split}"
    model.info = replace(model.info, name=entry.id, miou=entry.miou, miou_source=source, split=entry.split)
    return model


def read_config(path: Path) -> dict[str, Any]:
    """The whole configuration of the run that wrote a checkpoint.

    Raises:
        InputError: not a checkpoint of ``contextzoo fit``.
    """
    config: dict[str, Any] = checkpoints.read(path)["config"]
    return config


def read_checkpoint(path: Path, *, raw: bool = False) -> tuple[Description, dict[str, Tensor]]:
    """What a checkpoint of ``contextzoo fit`` says of its model, and the model's tensors.

    Args:
        raw: the weights as trained, where the run also averaged them (EMA); the default is the average.

    Raises:
        InputError: not such a checkpoint, or it holds no average although ``raw`` asks to tell them apart.
    """
    content = checkpoints.read(path)
    if raw and "current_model_state" not in content:
        raise InputError(f"{path} holds one set of weights only: the run averaged none")
    try:
        description = _of_run(content, path, raw=raw)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise input_error(error) or InputError(f"{path} does not say how to rebuild its model: {error!r}") from error
    tensors = content["current_model_state" if raw else "state_dict"]
    prefix = "segmentor."
    found = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
    return describing.check(description, path), found


def _of_run(content: Mapping[str, Any], path: Path, *, raw: bool) -> Description:
    """The description in a checkpoint, which is of the file's own making."""
    config, facts = content["config"], content["hyper_parameters"]
    specs.check_plain(config, f"{path}: its configuration", classes=True)
    data = config.get("data") or {}
    arguments = {key: value for key, value in (data.get("init_args") or {}).items() if key not in PLACES}
    protocol = dict(config["model"]["protocol"])
    if (size := arguments.get("image_size")) and not protocol.get("fit"):
        protocol |= {"fit": [max(size), min(size)], "antialias": True}  # as the datamodule resized them
    names = facts["class_names"] or [str(number) for number in range(min(facts["num_classes"], MOST_CLASSES + 1))]
    description = {
        "name": f"{path.parent.parent.name}/{path.stem}" if path.parent.name == "checkpoints" else path.stem,
        "model": {key: value for key, value in config["model"].items() if key in MODEL},
        "classes": list(names),
        "palette": [list(colour) for colour in facts["palette"] or default_palette(len(names))],
        "protocol": protocol,
        "data": {"class_path": data.get("class_path", ""), "init_args": arguments},
        "training": {"iterations": content["global_step"], **_recipe(config)},
    }
    table = content.get("callbacks", {}).get("ClassTable")
    if table and table["epoch"] == content["epoch"] + 1 and not raw:
        source = f"validation after epoch {table['epoch']} of its own run"
        description["metrics"] = {"miou": 100 * Scores(**table["scores"]).miou, "source": source, "stage": "val"}
    return description


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a run trained, as the zoo's index counts it."""
    model, data, trainer = config["model"], (config.get("data") or {}).get("init_args") or {}, config["trainer"]
    devices = trainer["devices"] if isinstance(trainer["devices"], int) else 1
    batch = data.get("batch_size", 1) * max(devices, 1) * trainer["num_nodes"] * trainer["accumulate_grad_batches"]
    crop = data.get("crop_size") or data.get("image_size")
    return {"batch": batch, "crop": crop, "optimizer": model["optimizer"], "lr": model["lr"]}


def read_published(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """What a file that ``contextzoo zoo publish`` wrote says of its model, and the model's tensors in float32.

    Raises:
        InputError: not such a file, or a damaged one.
    """
    tensors, metadata = tensor_files.read(path)
    description = describing.read(metadata.get(HEADER, "{}"), path)
    return description, {name: each.float() if each.dtype in HALVES else each for name, each in tensors.items()}


def build(description: Description, tensors: Mapping[str, Tensor]) -> Segmentor:
    """The described segmentor with its weights.

    Raises:
        InputError: the description is of no model, or the tensors are not its own.
    """
    name = description["name"]
    sizes = [tensor.numel() for tensor in tensors.values()]
    with specs.at_most(sizes, f"{name}: its model"):
        model = new_segmentor(description["model"], len(description["classes"]), name)
    openmmlab.load_strictly(model, tensors, what=f"{name}, the model that is described beside them")
    measured = description.get("metrics") or {}
    model.info = ModelInfo(
        name,
        tuple(description["classes"]),
        tuple((red, green, blue) for red, green, blue in description["palette"]),
        describing.protocol(description["protocol"], name),
        description["data"],
        measured.get("miou"),
        measured.get("source", ""),
        parts=description["model"],
    )
    return model


def transfer(
    source: Segmentor, target: Segmentor, num_classes: int, *, part: str | None = None, force: bool = False
) -> str:
    """Give ``target``, of ``num_classes`` classes, every tensor of ``source`` that fits by name and shape.

    Args:
        part: take those of this part alone, such as the backbone.
        force: even where under half of the target's tensors fit.

    Returns one line for a person: what was loaded and what was not.

    Raises:
        InputError: under half of the target's tensors are there, or those of a head of the same class have another
            width, and ``force`` is off.
    """
    assert source.info is not None
    given, wanted = (
        {name: tensor for name, tensor in model.state_dict().items() if part in (None, name.partition(".")[0])}
        for model in (source, target)
    )
    fitting = {name: tensor for name, tensor in given.items() if name in wanted and wanted[name].shape == tensor.shape}
    counted, present = (
        [name for name in names if not name.endswith("num_batches_tracked")] for names in (wanted, given)
    )
    new = [name for name in counted if name not in fitting]
    unused = [name for name in present if name not in wanted]
    share = f"{len(counted) - len(new)}/{len(counted)} tensors"
    other = [
        name for name in new if name in given and not _is_of_classes(given[name], wanted[name], source, num_classes)
    ]
    other = [name for name in other if name.startswith("head.") and type(source.head) is type(target.head)]
    if (2 * len(new) > len(counted) or other) and not force:
        raise InputError(
            f"Only {share} of the {part or 'model'} are in {source.info.name}, which is {describe(source)}: leave "
            f"--model.backbone and --model.head out, or give {_options(source.info.parts)}, "
            "or --model.weights_force true"
        )
    target.load_state_dict(fitting, strict=False)
    line = f"Loaded {share}{f' of the {part}' if part else ''}."
    if new:
        before = len(source.info.classes)
        line += f" New: {_summary(new)}" + (f" ({before} -> {num_classes} classes)." if before != num_classes else ".")
    return line + (f" Not used: {_summary(unused)}." if unused else "")


def _is_of_classes(given: Tensor, wanted: Tensor, source: Segmentor, num_classes: int) -> bool:
    """Whether two tensors differ in the number of classes alone."""
    assert source.info is not None
    return (given.shape[0], wanted.shape[0]) == (len(source.info.classes), num_classes) and (
        given.shape[1:] == wanted.shape[1:]
    )


def _options(parts: Mapping[str, Any]) -> str:
    """Backbone and head as they are typed."""
    typed = []
    for part in ("backbone", "head"):
        spec = parts.get(part) or {}
        if "class_path" in spec and (part == "head" or not spec["class_path"].endswith(f".{TimmBackbone.__name__}")):
            typed.append(f"--model.{part} {spec['class_path'].rpartition('.')[2]}")
        for key, value in (spec.get("init_args") or {}).items():
            if value not in (None, {}, False) and key != "pretrained":
                typed.append(f"--model.{part}.{key} {json.dumps(value, separators=(',', ':'))}".replace('"', ""))
    return " ".join(typed)


def describe(model: Segmentor) -> str:
    """Head and backbone in a few words."""
    backbone = getattr(model.backbone, "name", type(model.backbone).__name__)
    return f"{type(model.head).__name__} on {backbone}"


def _summary(names: Sequence[str]) -> str:
    """Names with what they share said once; of many, how many in each part of the model."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, parameter = name.rpartition(".")
        layers.setdefault(layer, []).append(parameter)
    if len(layers) > 4:
        parts = Counter(name.partition(".")[0] for name in names)
        return ", ".join(f"{count} of {part}" for part, count in parts.items())
    return ", ".join(
        f"{layer}.{{{','.join(parameters)}}}" if len(parameters) > 1 else f"{layer}.{parameters[0]}"
        for layer, parameters in layers.items()
    )


def is_known(id: str) -> bool:
    """Whether the zoo has weights of that id."""
    return any(entry.id == id for entry in zoo.list_entries())


def dataset_of(description: Description) -> Dataset | None:
    """The dataset of the zoo that the described weights were trained on, by its datamodule and its classes."""
    name = description["data"]["class_path"].rpartition(".")[2]
    for dataset in index.datasets().values():
        if dataset.data == name and dataset.classes == tuple(description["classes"]):
            return dataset
    return None


def add_entry(id: str, head: HeadEntry, values: Mapping[str, Any], *, rehearse: bool = False) -> Path:
    """Write an entry of own weights into the zoo's index; returns the file that it stands in.

    Args:
        rehearse: only find out whether it could be written.

    Raises:
        InputError: it would be wrong, or the id is taken; nothing is written.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if rehearse else index.INDEX
            if rehearse and (there := index.INDEX / f"{head.slug}.toml").is_file():
                shutil.copy(there, folder)
            return writing.add(id, head.slug, head.cls.__name__, head.paper, values, folder)
    except (OSError, ZooError) as error:
        raise InputError(f"No entry {id}: {error}") from None
