"""COCO's JSON as CVAT, Label Studio and Roboflow write it."""

from pathlib import Path
from typing import Any

from lightning_app.data import coco
from lightning_app.data.bad_file import BadFile
from lightning_app.data.labels.records import Export, LabelledImage, LabelledObject, Pictures, split_of


def read(files: list[Path], root: Path) -> Export:
    """All files of one export. Classes that no object has are left out, as Roboflow's first one, which names the set.

    Raises:
        BadFile: one of them cannot be used.
    """
    export, pictures = Export(), Pictures(root)
    for path in files:
        content = coco.read_json(path)
        places = _place_pictures(content, pictures, path)

        def stop(problem: str, where: str, path: Path = path) -> None:
            raise BadFile(path, (problem,), coco.EXPORT, where)

        file = coco.parse_content(content, path, stop)
        names = {category.id: category.name for category in file.categories}
        used = {each.category_id for found in file.annotations.values() for each in found}
        for number, name in names.items():
            if number in used:
                export.name(name)
            else:
                export.leave_out(f'class "{name}", which no object has')
        for image in file.images:
            objects = [
                LabelledObject(names[each.category_id], each.segmentation, each.bbox, each.iscrowd)
                for each in file.of(image)
            ]
            split = split_of(path, root)
            export.images.append(LabelledImage(places[image.id], image.height, image.width, objects, split))
    return export


def _place_pictures(content: Any, pictures: Pictures, path: Path) -> dict[int, Path]:
    """Where each image lies; its file_name becomes one that the reader takes."""
    places: dict[int, Path] = {}
    images = content.get("images") if isinstance(content, dict) else None
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str) and type(image.get("id")) is int:
            found = pictures.find(image["file_name"], path.parent, path)
            places[image["id"]] = found
            image["file_name"] = found.relative_to(pictures.root).as_posix()
    return places
