"""Under which name the zoo files a detector: the block that it is known for, or the detector itself."""

from typing import Any

import pytest
import torch

from lightning_app.tasks.instance.weights import InstanceFacts
from zoo import index

SHORTCUT = {"layer3": {"block": "gcnet", "where": "shortcut"}}


@pytest.mark.parametrize(
    ("built", "masks", "slug", "detector"),
    [
        ({}, True, "mask_rcnn", "mask-rcnn"),
        ({}, False, "faster_rcnn", "faster-rcnn"),
        ({"cascade": True}, True, "cascade_mask_rcnn", "cascade-mask-rcnn"),
        ({"cascade": True}, False, "cascade_rcnn", "cascade-rcnn"),
        ({"pyramid": "carafe"}, True, "carafe", "mask-rcnn"),
        ({"mask_upsample": "carafe"}, True, "carafe", "mask-rcnn"),
        ({"pyramid": "libra"}, False, "libra", "faster-rcnn"),
        ({"regions": "groie"}, True, "groie", "mask-rcnn"),
        ({"context": SHORTCUT}, True, "gcnet", "mask-rcnn"),
        ({"context": {"layer3": {"block": "se", "where": "last"}}}, True, "se", "mask-rcnn"),
    ],
)
def test_the_name_and_file_of_a_detector(built: dict[str, Any], masks: bool, slug: str, detector: str) -> None:
    options = {key: built[key] for key in built if key == "context"}
    backbone = {
        "class_path": "lightning_app.backbones.timm.TimmBackbone",
        "init_args": {"name": "resnet10t", **options},
    }
    model = {"backbone": backbone, **{key: built[key] for key in built if key != "context"}}
    facts = InstanceFacts(("cell",), masks, None)
    with torch.device("meta"):
        head = facts.head(facts.network(model, "a"))
    assert head.slug == slug
    assert facts.details(None, {}, model) == {"detector": detector, "image_size": None}
    known = index.file_of("instance", slug)
    if known.is_file():
        assert f'name = "{head.name}"' in known.read_text()
