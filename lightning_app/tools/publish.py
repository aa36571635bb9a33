"""``contextzoo zoo publish``: one's own checkpoint as a file that anyone can load, with its card and index entry."""

import argparse
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import yaml
from safetensors import SafetensorError
from torch import Tensor

import lightning_app
from lightning_app import data
from lightning_app.data.semantic.context_probe import CELL
from lightning_app.reading import specs, tensor_files
from lightning_app.registry import HEADS, Entry
from lightning_app.runs.folders import weights_of
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.tools.parser import Parser
from lightning_app.util.checkout import commit
from lightning_app.util.errors import InputError
from lightning_app.weights.checkpoint import PLACES, read_checkpoint, read_config
from lightning_app.weights.description import Description, Metrics
from lightning_app.weights.load import build, load
from lightning_app.weights.published import SHIPS, add_entry, dataset_of, is_known
from zoo import ZooError, index, writing

OPTIMIZERS: Final = {"sgd": "SGD", "adamw": "AdamW"}
HUB: Final = "hf://"
CARD: Final = "README.md"
UNFINISHED: Final = ".unfinished"  # marks a folder whose entry is not written yet


def main(args: Sequence[str]) -> int:
    """Publish one checkpoint: a folder, or a repository of the Hugging Face hub, with the weights and their card."""
    options = _parse(args)
    if is_known(options.id):
        raise InputError(f"{options.id} is taken: give another --id")
    description, tensors = read_checkpoint(options.checkpoint, raw=options.raw)
    metrics = _metrics(options, description)
    provenance = {"weights": "raw" if options.raw else "as evaluated", "contextzoo": lightning_app.__version__}
    description = replace(description, name=options.id, metrics=metrics, provenance=provenance)
    model = build(description, tensors)
    head = _entry_of(model)
    dataset = dataset_of(description)
    terms = options.data_licence or (dataset and dataset.terms)
    if not terms:
        raise InputError(
            f"The zoo does not know the dataset of {options.checkpoint}: give its terms with --data-licence and the "
            "weights get no entry in the index, or add it to zoo/datasets.toml"
        )
    licences = {"code": options.code_licence, "weights": options.weights_licence, "training data": terms}
    description = replace(description, licences=licences)
    with _alone(options, enters=dataset is not None), _stage(options) as stage:
        weights = stage / f"{options.id}.safetensors"
        tensor_files.write(weights, _tensors(model, half=options.half), description.as_header())
        load(weights)
        config = read_config(options.checkpoint)
        logs = _keep_run(options.checkpoint, config, stage)
        (stage / CARD).write_text(_card(options, description, model, head, _start(config["model"]), logs))
        values: dict[str, Any] = {}
        if dataset:
            values = _values(options, description, weights) | {"dataset": dataset.slug}
            add_entry(options.id, "semantic", head, values, rehearse=True)
        place = _push(options, stage) if options.to.startswith(HUB) else _move(options, stage)
        entered = "No entry in the index: the zoo does not know its dataset"
        if dataset:
            path = add_entry(options.id, "semantic", head, values)
            entered = f"Entry in {path}: contextzoo zoo show {options.id}"
        if isinstance(place, Path):
            (place / UNFINISHED).unlink()
    print(f"{options.id}: {place}")
    print(entered)
    return 0


@contextmanager
def _alone(options: argparse.Namespace, *, enters: bool) -> Iterator[None]:
    """One process at a time enters weights into the index; what cannot be written is one line."""
    try:
        with writing.locked(index.INDEX) if enters else nullcontext():
            yield
    except ZooError as error:
        raise InputError(f"No entry {options.id}: {error}") from None
    except (OSError, SafetensorError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise InputError(f"{options.id} cannot be published: {reason}") from None


def _metrics(options: argparse.Namespace, description: Description) -> Metrics:
    """The figure to publish: what was given, what was measured with this checkpoint, or what its run saw."""
    if options.miou is not None:
        return Metrics(options.miou, options.miou_source)
    run = options.checkpoint.parent.parent
    for stage, command in (("test", "test"), ("val", "validate")):
        path = run / f"{command}.json"
        if options.raw or not path.is_file():
            continue
        content = json.loads(path.read_text())
        if content["checkpoint"] and Path(content["checkpoint"]).resolve() == options.checkpoint.resolve():
            when = date.fromtimestamp(path.stat().st_mtime)
            source = f"contextzoo {command} --ckpt_path {options.checkpoint.name}, {when}{_of_commit()}"
            return Metrics(100 * content["mIoU"], source, stage, content["split"])
    if description.metrics is None:
        raise InputError(
            f"No figure is known of {options.checkpoint}: measure it with contextzoo test --ckpt_path, or give "
            "--miou and --miou-source"
        )
    return replace(description.metrics, source=f"{description.metrics.source}{_of_commit()}")


def _of_commit() -> str:
    """The commit that this runs from, as the end of a source."""
    name = commit()
    return f", commit {name}" if name else ""


def _entry_of(model: Segmentor) -> Entry:
    for entry in HEADS.values():
        if entry.cls is type(model.head):
            return entry
    raise InputError(f"{type(model.head).__name__} is not registered as a head (contextzoo heads)")


def _tensors(model: Segmentor, *, half: bool) -> dict[str, Tensor]:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if not half:
        return tensors
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in halves.items():
        if not tensor.isfinite().all():
            raise InputError(f"{name} has values beyond half precision's 65504: publish without --half")
    return halves


def _keep_run(checkpoint: Path, config: dict[str, Any], stage: Path) -> list[str]:
    """Keep the run's configuration, to train it again, and its log where that is there; names of the log's files."""
    data = config["data"]
    arguments = {key: value for key, value in data["init_args"].items() if key not in PLACES}
    kept = config | {"data": data | {"init_args": arguments}}
    (stage / "config.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    logs = sorted(checkpoint.parent.parent.glob("csv/version_*/metrics.csv"))  # more than one of a resumed run
    trained = [log for log in logs if ",train/" in log.read_text().partition("\n")[0]]
    return [Path(shutil.copy(log, stage / f"metrics_{number}.csv")).name for number, log in enumerate(trained)]


def _values(options: argparse.Namespace, description: Description, weights: Path) -> dict[str, Any]:
    """The index entry's fields, but for the dataset."""
    training, metrics = description.training, description.metrics
    assert training
    assert metrics
    assert metrics.miou is not None
    crop = options.crop or training.crop or _drawn_size(description)
    if not crop:
        raise InputError("It was trained on whole images: say with --crop H W how large they are")
    return {
        "backbone": {"name": _backbone_name(description)},
        "split": options.split or _split(description),
        "crop": list(crop),
        "metrics": {"mIoU": round(metrics.miou, 2)},
        "metrics_source": metrics.source,
        "iterations": training.iterations,
        "batch": training.batch,
        "optimizer": OPTIMIZERS[training.optimizer],
        "lr": training.lr,
        "url": _url(options),
        "size": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "format": "safetensors",
        "code_licence": options.code_licence,
        "weights_licence": options.weights_licence,
    }


def _backbone_name(description: Description) -> str:
    part = description.model["backbone"]
    return str(specs.given(part).get("name") or part["class_path"].rpartition(".")[2].lower())


def _split(description: Description) -> str:
    """The split that the figure is of: as recorded, else the run's own choice, else the dataset's usual one."""
    metrics, spec, what = description.metrics, asdict(description.data), f"{description.name}: its data"
    if metrics and metrics.split:
        return metrics.split
    cls = specs.class_of(spec, specs.known_classes(data.SegmentationDataModule), what)
    arguments = specs.arguments(spec, cls, what)
    if cls is data.Folder:
        arguments["classes"] = list(description.classes)  # which it would else read
    datamodule: Any = specs.make(lambda: cls(**arguments), what)
    return str(datamodule.splits[metrics.stage if metrics else "val"])


def _drawn_size(description: Description) -> list[int] | None:
    """Height and width of images that are drawn, None of those of a file."""
    if description.data.name != data.ContextProbe.__name__:
        return None
    side = CELL * description.data.init_args["cells"]
    return [side, side]


def _folder(options: argparse.Namespace) -> Path:
    folder: Path = Path(options.to).expanduser() / options.id
    return folder


def _url(options: argparse.Namespace) -> str:
    file = f"{options.id}.safetensors"
    if options.to.startswith(HUB):
        return f"{options.to.rstrip('/')}/{file}"
    path = _folder(options).resolve() / file
    return path.relative_to(SHIPS.parent).as_posix() if path.is_relative_to(SHIPS) else path.as_uri()


@contextmanager
def _stage(options: argparse.Namespace) -> Iterator[Path]:
    """An empty folder on the right disk, which is gone afterwards."""
    parent = None
    if not options.to.startswith(HUB):
        folder = _folder(options)
        if (folder / UNFINISHED).is_file():  # stopped in mid-way, in front of the index
            shutil.rmtree(folder)
        if folder.exists():
            raise InputError(f"{folder} is there already: give another --id or --to")
        parent = folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        for stopped in parent.glob(f".{options.id}.*"):
            shutil.rmtree(stopped)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{options.id}.") as stage:
        yield Path(stage)


def _move(options: argparse.Namespace, stage: Path) -> Path:
    """The staged files under their own name in one step, marked as unfinished until the index knows them."""
    folder = _folder(options)
    files = list(stage.iterdir())
    complete = stage / options.id
    complete.mkdir()
    (complete / UNFINISHED).touch()
    for file in files:
        file.rename(complete / file.name)
    complete.rename(folder)
    stage.rmdir()
    return folder


def _push(options: argparse.Namespace, stage: Path) -> str:
    """Upload the folder in one commit; returns its address."""
    repository = options.to.removeprefix(HUB).strip("/")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError("Pushing needs huggingface_hub: pip install 'contextzoo[hub]'") from None
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=stage, commit_message=f"Add {options.id}")
    except Exception as error:  # its HTTP library's errors come through as well
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(
            f"Cannot push to {options.to} ({reason}): log in with hf auth login, or look at the name"
        ) from None
    return f"https://huggingface.co/{repository}"


def _start(model: dict[str, Any]) -> str:
    """What a training began from, and what of that it left alone, by its configuration's ``model``."""
    backbone = specs.given(model["backbone"])
    if model.get("weights"):
        part = "all layers" if model.get("weights_part", "all") == "all" else model["weights_part"]
        start = f"{Path(model['weights']).name}, {part}"
    elif first := backbone.get("pretrained"):
        start = Path(first).name if isinstance(first, str) else f"pretrained weights of {backbone['name']}"
    else:
        start = "random weights"
    frozen = model.get("freeze") or []
    return f"{start}; frozen: {frozen if isinstance(frozen, str) else ', '.join(frozen)}" if frozen else start


def _card(
    options: argparse.Namespace,
    description: Description,
    model: Segmentor,
    head: Entry,
    start: str,
    logs: Sequence[str],
) -> str:
    """The model card, with the fields that the Hugging Face hub reads on top."""
    metrics, training, licences = description.metrics, description.training, description.licences
    assert training
    assert metrics
    count = sum(each.numel() for each in model.parameters()) / 1e6
    optimizer = f"{OPTIMIZERS[training.optimizer]}, lr {training.lr:g}"
    facts = {
        "head": f"{head.cls.__name__} ({head.paper})" if head.paper else head.cls.__name__,
        "backbone": f"{_backbone_name(description)}, output stride {max(model.backbone.reductions)}",
        "mIoU": f"{metrics.miou:.2f} ({metrics.source})",
        "protocol": ", ".join(f"{key} {value}" for key, value in description.as_dict()["protocol"].items() if value),
        "trained": f"{training.iterations} steps of {training.batch} images, {optimizer}",
        "begun from": start,
        "parameters": f"{count:.1f} M, {'half' if options.half else 'single'} precision",
        "licence of the code": licences["code"],
        "licence of the weights": licences["weights"],
        "terms of the training data": licences["training data"],
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    classes = ", ".join(description.classes)
    root = "" if _drawn_size(description) else " --data.root DIR"
    log = f" Its log: {', '.join(logs)}." if logs else ""
    return f"""---
license: {options.weights_licence.lower()}
library_name: contextzoo
pipeline_tag: image-segmentation
---

# {options.id}

{head.summary}

```
contextzoo segment photo.jpg --weights {options.id}
```

```python
import contextzoo as cz

model = cz.load("{options.id}")  # or the path of the .safetensors file
logits = model(images)  # RGB in 0..1, (B, 3, H, W) -> (B, {len(description.classes)}, H, W)
```

| | |
| --- | --- |
{table}

Classes: {classes}.

`contextzoo fit -c config.yaml{root}` trains it again.{log}
"""


def _checkpoint(word: str) -> Path:
    """A file, or what a run's name or folder, best or last means."""
    path = Path(word)
    return path if path.is_file() else weights_of(word) or path


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contextzoo zoo publish",
        description="Write a checkpoint as DIR/ID/ID.safetensors with its card, README.md, and enter it in the index.",
        epilog="example: contextzoo zoo publish runs/NAME/checkpoints/best.ckpt --id ccnet_resnet18_camvid-360x480_1k",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoint", type=_checkpoint, metavar="CKPT|RUN", help="its EMA weights where it kept them")
    add("--id", required=True, help="HEAD_BACKBONE_DATASET-CROP_SCHEDULE in lower case")
    add("--to", default=str(SHIPS), metavar="DIR|hf://USER/REPO", help=f"default: {SHIPS.name}, to ship with the code")
    add("--raw", action="store_true", help="the weights as trained, where the run also averaged them (EMA)")
    add("--half", action="store_true", help="store in half precision; they load in single precision")
    add("--miou", type=float, metavar="PERCENT", help="default: as measured with this checkpoint")
    add("--miou-source", metavar="TEXT", help="how and when it was measured; goes with --miou")
    add("--split", help="that the figure is of; default: the run's, else the dataset's usual one")
    add("--crop", nargs=2, type=int, metavar=("H", "W"), help="of training; default: as the data says")
    add("--code-licence", default="Apache-2.0", metavar="ID", help="default: Apache-2.0, as this project's")
    add("--weights-licence", default="Apache-2.0", metavar="ID", help="default: Apache-2.0")
    add("--data-licence", metavar="TEXT", help="terms of the training data; default: as the zoo knows them")
    options = parser.parse_args(args)
    if not re.fullmatch(r"[a-z0-9_-]+", options.id):
        parser.error(f"--id {options.id!r}: lower-case letters, digits, - and _")
    if (options.miou is None) != (options.miou_source is None):
        parser.error("--miou and --miou-source go together")
    if options.raw and options.miou is None:
        parser.error("a run measures its averaged weights: give the raw ones' --miou and --miou-source")
    return options
