"""The zoo and the datamodules say the same of a dataset."""

import pytest

from lightning_app.data.facts import DatasetFacts
from lightning_app.data.semantic import ade20k, camvid, cityscapes, coco_stuff, pascal_context, pascal_voc
from lightning_app.data.semantic.context_probe import ContextProbe
from zoo import index

FACTS = {
    "ade20k": ade20k.FACTS,
    "camvid": camvid.FACTS,
    "cityscapes": cityscapes.FACTS,
    "context-probe": ContextProbe().facts,
    "coco-stuff10k": coco_stuff.FACTS_10K,
    "coco-stuff164k": coco_stuff.FACTS,
    "pascal-context": pascal_context.FACTS_60,
    "pascal-context-59": pascal_context.FACTS,
    "voc12aug": pascal_voc.FACTS,
}


@pytest.mark.parametrize("slug", FACTS)
def test_classes_palette_and_datamodule(slug: str) -> None:
    facts: DatasetFacts = FACTS[slug]
    dataset = index.datasets()[slug]
    assert dataset.classes == facts.classes
    assert dataset.palette == tuple("{:02x}{:02x}{:02x}".format(*colour) for colour in facts.palette)
    assert dataset.data.split()[0] == facts.name
    entries = index.list_entries(dataset=slug)
    assert {entry.split for entry in entries if entry.format == "openmmlab"} <= {facts.test_split}
    assert {entry.split for entry in entries} <= facts.splits.keys()


def test_every_datamodule_of_the_zoo_exists() -> None:
    assert {dataset.data for slug, dataset in index.datasets().items() if slug not in FACTS} == {"Folder"}
