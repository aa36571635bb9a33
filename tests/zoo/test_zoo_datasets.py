"""What is known of a dataset stands once: in zoo/datasets.toml, where the datamodules take it from."""

import re
import tomllib
from pathlib import Path

import pytest

from lightning_app import data
from lightning_app.data.facts import DatasetFacts
from lightning_app.data.semantic import ade20k, camvid, cityscapes, coco_stuff, pascal_context, pascal_voc
from lightning_app.data.semantic.context_probe import ContextProbe
from zoo import ZooError, datasets, index

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


PACKAGE = Path(__file__).parents[2] / "lightning_app"


@pytest.mark.parametrize("slug", FACTS)
def test_the_datamodule_has_the_zoos_facts(slug: str) -> None:
    facts: DatasetFacts = FACTS[slug]
    dataset = datasets.datasets()[slug]
    module = getattr(data, dataset.data)(**dataset.arguments)
    assert module.facts == facts
    assert (facts.name, facts.classes) == (dataset.data, dataset.classes)
    assert dataset.palette == tuple("{:02x}{:02x}{:02x}".format(*colour) for colour in facts.palette)
    entries = index.list_entries(dataset=slug)
    assert {entry.split for entry in entries if entry.format == "openmmlab"} <= {facts.test_split}
    assert {entry.split for entry in entries} <= facts.splits.keys()


def test_every_datamodule_of_the_zoo_exists() -> None:
    assert {dataset.data for slug, dataset in datasets.datasets().items() if slug not in FACTS} == {
        "Folder",
        "COCOInstances",
        "COCOKeypoints",
    }


def test_classes_and_colours_stand_nowhere_else() -> None:
    told = [re.sub(r"[\s\"']+", " ", path.read_text()) for path in PACKAGE.rglob("*.py")]
    assert len(told) > 50
    for slug, dataset in datasets.datasets().items():
        for parts in (", ".join(dataset.classes[1:4]), ", ".join(dataset.classes[-3:]), " ".join(dataset.palette[1:4])):
            assert not parts or not any(parts in text for text in told), (slug, parts)


def test_no_list_stands_twice_in_the_zoo() -> None:
    tables = tomllib.loads((datasets.ROOT / "datasets.toml").read_text()).values()
    for key in ("classes", "palette"):
        lists = [" ".join(table[key].split()) for table in tables if key in table and len(table[key].split()) > 10]
        assert len(lists) == len(set(lists)) > 5


def test_classes_of_another_dataset() -> None:
    with_background, without = (datasets.datasets()[slug] for slug in ("pascal-context", "pascal-context-59"))
    assert without.classes == with_background.classes[1:]
    assert without.palette == with_background.palette[1:]
    assert without.typed == "PascalContext --data.classes 59"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'like = "coco-stuff10k"',
            'like = "coco-stuff10"',
            r"\[coco-stuff164k\]: like: .* Did you mean \"coco-stuff10k\"\?",
        ),
        (
            'without = ["background"]',
            'without = ["backgrund"]',
            r"\[pascal-context-59\]: without must be a list of classes of",
        ),
        (
            "arguments = { classes = 59 }",
            "arguments = { classes = [59] }",
            "arguments must be a table of texts and whole",
        ),
        ('like = "potsdam"', 'like = "potsdam"\nclasses = "a"', r"\[vaihingen\]: wrong or missing key: classes"),
    ],
)
def test_a_wrong_table_is_named(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (datasets.ROOT / "datasets.toml").read_text()
    assert text.count(old) == 1
    (tmp_path / "datasets.toml").write_text(text.replace(old, new))
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    with pytest.raises(ZooError, match=message):
        datasets.datasets.__wrapped__()
