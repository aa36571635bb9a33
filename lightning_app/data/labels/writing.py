"""An export as COCO's JSON, or as class masks."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_app.data import coco
from lightning_app.data.bad_file import BadFile
from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.labels.records import Export, LabelledImage
from lightning_app.data.listing import place_of
from lightning_app.data.rle import decode, to_rle
from lightning_app.util.errors import InputError
from lightning_app.util.files import make_folder

MOST_CLASSES: Final = 255  # that a mask of 8 bits can number beside the background


def write(export: Export, out: Path, *, masks: bool = False, val_share: float = 0.2) -> dict[str, CocoFile]:
    """Write what COCOInstances reads, or with ``masks`` what Folder reads; all of it or nothing.

    Pictures without a split go to train or val by their names. Returns each split's annotations.

    Raises:
        InputError: nothing to write, ``out`` is taken, or an outline cannot be used.
    """
    if not export.images:
        raise InputError("The export has no pictures: nothing to import")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: give another --out")
    if masks and len(export.names) > MOST_CLASSES:
        raise InputError(f"{len(export.names)} classes: masks of 8 bits number {MOST_CLASSES} beside the background")
    make_folder(out.parent)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    files: dict[str, CocoFile] = {}
    try:
        for split, images in _splits(export.images, val_share).items():
            names = _names(images)
            content = _content(images, names, export.names)
            files[split] = file = coco.parse_content(content, images[0].path, _refuse(images[0].path.parent))
            folder = temporary / "images" / split if masks else temporary / split
            folder.mkdir(parents=True)
            for image, name in zip(images, names, strict=True):
                shutil.copyfile(image.path, folder / name)
            if masks:
                _write_masks(file, temporary / "masks" / split)
            else:
                _write_json(file, content, temporary / "annotations" / f"instances_{split}.json")
        if masks:
            (temporary / "classes.txt").write_text("\n".join(["background", *export.names]) + "\n")
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return files


def _splits(images: Sequence[LabelledImage], val_share: float) -> dict[str, list[LabelledImage]]:
    """Pictures by split; of those without one each name says for ever where it belongs."""
    free = sorted((image for image in images if not image.split), key=lambda image: place_of(image.path.stem))
    count = sum(place_of(image.path.stem) < val_share for image in free)
    count = min(max(count, 1), len(free) - 1) if len(free) > 1 else 0  # of few pictures each side still gets one
    splits: dict[str, list[LabelledImage]] = {}
    for image in images:
        splits.setdefault(image.split or ("val" if image in free[:count] else "train"), []).append(image)
    return splits


def _names(images: Sequence[LabelledImage]) -> list[str]:
    """A name for each picture's file: its own, with its folder's in front where two share it."""
    taken = Counter(image.path.name for image in images)
    names = [
        image.path.name if taken[image.path.name] == 1 else f"{image.path.parent.name}_{image.path.name}"
        for image in images
    ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"Several pictures are called {twice[0]}: rename them")
    return names


def _content(images: Sequence[LabelledImage], names: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    ids = {name: number for number, name in enumerate(classes, 1)}
    annotations: list[dict[str, Any]] = []
    entries = []
    for number, (image, name) in enumerate(zip(images, names, strict=True), 1):
        entries.append({"id": number, "file_name": name, "height": image.height, "width": image.width})
        for each in image.objects:
            made: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[each.name]}
            made |= {"iscrowd": int(each.iscrowd)}
            if isinstance(each.segmentation, dict):
                counts = each.segmentation["counts"].decode()
                made["segmentation"] = {"size": each.segmentation["size"], "counts": counts}
            elif each.segmentation:
                made["segmentation"] = each.segmentation
            else:
                made["bbox"] = list(each.bbox or ())
            annotations.append(made)
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _refuse(folder: Path) -> coco.Fault:
    def stop(problem: str, where: str) -> None:
        raise BadFile(folder, (problem,), "Correct it in the labelling tool.", where)

    return stop


def _write_json(file: CocoFile, content: dict[str, Any], path: Path) -> None:
    """The content, with a box and an area for each object."""
    known = {each.id: each for found in file.annotations.values() for each in found}
    for each in content["annotations"]:
        each |= {"bbox": list(known[each["id"]].bbox), "area": known[each["id"]].area}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def _write_masks(file: CocoFile, folder: Path) -> None:
    folder.mkdir(parents=True)
    for image in file.images:
        path = folder / Path(image.file_name).with_suffix(".png").name
        if path.exists():
            raise InputError(f"Several pictures are called {path.stem}: rename them, so that each has a mask")
        Image.fromarray(class_mask(image, file.of(image), file.labels)).save(path)


def class_mask(image: CocoImage, objects: Sequence[CocoAnnotation], labels: dict[int, int]) -> NDArray[np.uint8]:
    """0 where there is nothing, else the label + 1; smaller objects lie above larger ones. Shape: (H, W)."""
    mask = np.zeros((image.height, image.width), dtype=np.uint8)
    for each in sorted(objects, key=lambda each: -each.area):
        value = labels[each.category_id] + 1
        if each.segmentation is not None:
            mask[decode(to_rle(each.segmentation, image.height, image.width))] = value
        else:
            left, top, width, height = (round(side) for side in each.bbox)
            mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = value
    return mask
