"""The model card of published weights, with the fields that the Hugging Face hub reads on top."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lightning_app.reading import specs
from lightning_app.registry import DEFAULT_TASK, Entry
from lightning_app.tools.publish_entry import OPTIMIZERS, backbone_name
from lightning_app.weights.description import Description


def card(
    description: Description,
    network: nn.Module,
    head: Entry,
    *,
    start: str,
    logs: Sequence[str],
    drawn: bool,
    half: bool,
) -> str:
    """The card.

    Args:
        start: what the training began from.
        logs: names of its log's files.
        drawn: whether the data are drawn, so that they need no folder.
        half: whether the weights are stored in half precision.
    """
    id, facts, told = description.name, description.facts, description.info.told
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(description, network, head, start, half).items())
    verb = "segment" if description.task == DEFAULT_TASK else "infer"
    root = "" if drawn else " --data.root DIR"
    log = f" Its log: {', '.join(logs)}." if logs else ""
    return f"""---
license: {description.licences["weights"].lower()}
library_name: contextzoo
pipeline_tag: {facts.pipeline}
---

# {id}

{head.summary}

```
contextzoo {verb} photo.jpg --weights {id}
```

```python
import contextzoo as cz

model = cz.load("{id}")  # or the path of the .safetensors file
result = model.predict("photo.jpg")  # model.info: {told}, figures, where they come from
```

| | |
| --- | --- |
{rows}

{told.capitalize()}: {", ".join(facts.labels)}.

`contextzoo fit -c config.yaml{root}` trains it again.{log}
"""


def _facts(description: Description, network: nn.Module, head: Entry, start: str, half: bool) -> dict[str, str]:
    metrics, training, licences = description.metrics, description.training, description.licences
    assert training
    assert metrics
    backbone: Any = network.backbone
    count = sum(each.numel() for each in network.parameters()) / 1e6
    optimizer = f"{OPTIMIZERS[training.optimizer]}, lr {training.lr:g}"
    protocol = description.facts.protocol_in_words()
    return {
        "head": f"{head.cls.__name__} ({head.paper})" if head.paper else head.cls.__name__,
        "backbone": f"{backbone_name(description)}, output stride {max(backbone.reductions)}",
        **{name: f"{value:.2f} ({metrics.source})" for name, value in metrics.figures.items()},
        **({"protocol": protocol} if protocol else {}),
        "trained": f"{training.iterations} steps of {training.batch} images, {optimizer}",
        "begun from": start,
        "parameters": f"{count:.1f} M, {'half' if half else 'single'} precision{_shared(description)}",
        "licence of the code": licences["code"],
        "licence of the weights": licences["weights"],
        "terms of the training data": licences["training data"],
    }


def _shared(description: Description) -> str:
    parts = description.shared.items()
    return "".join(f"; the {part} in {digest[:12]}..., once for all that share it" for part, digest in parts)


def start_of(model: Mapping[str, Any]) -> str:
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
