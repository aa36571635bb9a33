"""``contextzoo zoo publish``: one's own checkpoint as a file that anyone can load, with its card and index entry."""

import argparse
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

import lightning_app
from lightning_app.reading import tensor_files
from lightning_app.runs.folders import weights_of
from lightning_app.tools import publish_place
from lightning_app.tools.parser import Parser
from lightning_app.tools.publish_entry import measured, values_of
from lightning_app.util.errors import InputError
from lightning_app.weights import hub, shared
from lightning_app.weights.card import CARD, PICTURE, card
from lightning_app.weights.checkpoint import PLACES, read_checkpoint, read_config
from lightning_app.weights.description import Description, Metrics
from lightning_app.weights.folder import tensors_of
from lightning_app.weights.load import build, load
from lightning_app.weights.published import SHIPS, add_entry, dataset_of, is_known
from zoo import ZooError, index, writing
from zoo.datasets import Dataset


def main(args: Sequence[str]) -> int:
    """Publish one checkpoint: a folder, or a repository of the Hugging Face hub, with the weights and their card."""
    options = _parse(args)
    if is_known(options.id):
        raise InputError(f"{options.id} is taken: give another --id")
    description, tensors = read_checkpoint(options.checkpoint, raw=options.raw)
    dataset = dataset_of(description)
    description = _completed(options, description, dataset)
    network = build(description, tensors)
    head = description.facts.head(network)
    with (
        _alone(options.id, enters=dataset is not None),
        publish_place.staged(options.to, options.id) as stage,
        ExitStack() as undo,
    ):
        weights = stage / f"{options.id}.safetensors"
        tensors = tensors_of(network, half=options.half)
        if options.share_backbone:
            of_backbone = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
            digest, common = shared.write(of_backbone, stage.parent)
            description = replace(description, shared={"backbone": digest})
            tensors = {name: tensor for name, tensor in tensors.items() if name not in of_backbone}
            if common:  # what is there already is of other weights too
                undo.callback(common.unlink)
        tensor_files.write(weights, tensors, description.as_header())
        load(weights)
        config = read_config(options.checkpoint)
        logs = _keep_run(options.checkpoint, config, stage)
        if options.picture:
            network.predict(options.picture).overlay().save(stage / PICTURE, quality=90)
        address, picture = publish_place.address_of(options.to, options.id), bool(options.picture)
        text = card(description, network, address=address, logs=logs, config=True, picture=picture, half=options.half)
        (stage / CARD).write_text(text)
        values: dict[str, Any] = {}
        if dataset:
            values = values_of(description, network, weights, crop=options.crop)
            values |= {"dataset": dataset.slug, "url": publish_place.url_of(options.to, options.id)}
            values |= {"shared": publish_place.urls_of(options.to, description.shared)} if description.shared else {}
            add_entry(options.id, description.task, head, values, rehearse=True)
        place = publish_place.publish(stage, options.to, options.id)
        entered = "No entry in the index: the zoo does not know its dataset"
        if dataset:
            path = add_entry(options.id, description.task, head, values)
            entered = f"Entry in {path}: contextzoo zoo show {options.id}"
        publish_place.finish(place)
        undo.pop_all()
    print(f"{options.id}: {place}")
    print(entered)
    return 0


def _completed(options: argparse.Namespace, description: Description, dataset: Dataset | None) -> Description:
    """What the checkpoint says, with its id, its figures and its licences."""
    metrics = Metrics(dict(options.figure), options.source) if options.figure else None
    metrics = metrics or measured(options.checkpoint, description, raw=options.raw)
    if wrong := metrics.figures.keys() - set(description.facts.figures):
        raise InputError(f"--figure {min(wrong)}: weights of this task have {', '.join(description.facts.figures)}")
    terms = options.data_licence or (dataset and dataset.terms)
    if not terms:
        raise InputError(
            f"The zoo does not know the dataset of {options.checkpoint}: give its terms with --data-licence and the "
            "weights get no entry in the index, or add it to zoo/datasets.toml"
        )
    return replace(
        description,
        name=options.id,
        metrics=replace(metrics, split=options.split or metrics.split),
        provenance={
            **description.provenance,
            "weights": "raw" if options.raw else "as evaluated",
            "contextzoo": lightning_app.__version__,
        },
        licences={"code": options.code_licence, "weights": options.weights_licence, "training data": terms},
    )


@contextmanager
def _alone(id: str, *, enters: bool) -> Iterator[None]:
    """One process at a time enters weights into the index; what cannot be written is one line."""
    try:
        with writing.locked(index.INDEX) if enters else nullcontext():
            yield
    except ZooError as error:
        raise InputError(f"No entry {id}: {error}") from None
    except (OSError, SafetensorError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise InputError(f"{id} cannot be published: {reason}") from None


def _keep_run(checkpoint: Path, config: dict[str, Any], stage: Path) -> list[str]:
    """Keep the run's configuration, to train it again, and its log where that is there; names of the log's files."""
    data = config["data"]
    arguments = {key: value for key, value in data["init_args"].items() if key not in PLACES}
    kept = config | {"data": data | {"init_args": arguments}}
    (stage / "config.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    logs = sorted(checkpoint.parent.parent.glob("csv/version_*/metrics.csv"))  # more than one of a resumed run
    trained = [log for log in logs if ",train/" in log.read_text().partition("\n")[0]]
    return [Path(shutil.copy(log, stage / f"metrics_{number}.csv")).name for number, log in enumerate(trained)]


def _checkpoint(word: str) -> Path:
    """A file, or what a run's name or folder, best or last means."""
    path = Path(word)
    return path if path.is_file() else weights_of(word) or path


def _figure(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name or "mIoU", float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=PERCENT, such as mIoU=58.4") from None


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
    add(
        "--share-backbone",
        action="store_true",
        help="in a file of its own, once for all weights that have this backbone",
    )
    figure: dict[str, Any] = {"type": _figure, "action": "append", "default": [], "metavar": "NAME=PERCENT"}
    add("--figure", "--miou", **figure, help="such as mIoU=58.4; default: as measured with this checkpoint")
    add("--source", "--miou-source", metavar="TEXT", help="how and when it was measured; goes with --figure")
    add("--split", help="that the figure is of; default: the run's, else the dataset's usual one")
    add("--crop", nargs=2, type=int, metavar=("H", "W"), help="of training; default: as the data says")
    add("--picture", metavar="PHOTO", help="a photograph for the card, with what the weights see in it")
    add("--code-licence", default="Apache-2.0", metavar="ID", help="default: Apache-2.0, as this project's")
    add("--weights-licence", default="Apache-2.0", metavar="ID", help="default: Apache-2.0")
    add("--data-licence", metavar="TEXT", help="terms of the training data; default: as the zoo knows them")
    options = parser.parse_args(args)
    if not re.fullmatch(r"[a-z0-9_-]+", options.id):
        parser.error(f"--id {options.id!r}: lower-case letters, digits, - and _")
    if bool(options.figure) != (options.source is not None):
        parser.error("--figure and --source go together")
    if options.share_backbone and options.to.startswith(hub.SCHEME):
        parser.error("--share-backbone goes with a folder: a repository of the hub holds one set of weights")
    if options.raw and not options.figure:
        parser.error("a run measures its averaged weights: give the raw ones' --figure and --source")
    return options
