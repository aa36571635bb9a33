"""The card of weights, ``README.md``: what the Hugging Face hub reads on top, and what a person reads below."""

import re
from collections.abc import Sequence
from typing import Any, Final

import yaml
from torch import nn

from lightning_app.registry import DEFAULT_TASK, Entry
from lightning_app.util.errors import InputError
from lightning_app.weights.description import Description
from lightning_app.weights.published import dataset_of

CARD: Final = "README.md"
PICTURE: Final = "picture.jpg"
OPTIMIZERS: Final = {"sgd": "SGD", "adamw": "AdamW"}
METRICS: Final = {"mIoU": "mean_iou"}  # figures that the hub calls otherwise
LICENCES: Final = re.compile(  # that the hub knows by these names; others are "other" there, with a name of their own
    r"apache-2\.0|mit|bsd(-[23]-clause)?|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|cdla-(permissive|sharing)-1\.0|isc|odbl"
    r"|(a|l)?gpl-3\.0|l?gpl-2\.[01]|mpl-2\.0|openrail|unlicense|wtfpl|zlib|unknown"
)


def card(
    description: Description,
    network: nn.Module,
    *,
    address: str,
    logs: Sequence[str] = (),
    config: bool = False,
    picture: bool = False,
    half: bool = False,
) -> str:
    """The card.

    Args:
        address: by which ``contextzoo.load`` finds the weights.
        logs: names of the training's log files, which lie beside it.
        config: whether the training's ``config.yaml`` does.
        picture: whether ``picture.jpg`` does.
        half: whether the weights are stored in half precision.
    """
    facts, told, dataset = description.facts, description.info.told, dataset_of(description)
    head = _head(description, network)
    verb = "segment" if description.task == DEFAULT_TASK else "infer"
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(description, network, half).items())
    root = "" if dataset is not None and dataset.url is None else " --data.root DIR"  # or drawn on the spot
    again = f"\n`contextzoo fit -c config.yaml{root}` trains it again." if config else ""
    log = f" Its log: {', '.join(logs)}." if logs else ""
    said = head.summary if head and hasattr(network, "head") else (type(network).__doc__ or "").partition("\n")[0]
    drawn = f"\n![What it sees in a photograph]({PICTURE})\n" if picture else ""
    return (
        f"""---
{yaml.safe_dump(front_matter(description, network), sort_keys=False, allow_unicode=True).strip()}
---

# {description.name}

{said}
{drawn}
```
contextzoo {verb} photo.jpg --weights {address}
```

```python
import contextzoo as cz

model = cz.load("{address}")  # or the path of its file
result = model.predict("photo.jpg")  # model.info: {told}, figures, where they come from
```

| | |
| --- | --- |
{rows}

{told.capitalize()}: {", ".join(facts.labels)}.
{again}{log}
""".rstrip()
        + "\n"
    )


def front_matter(description: Description, network: nn.Module) -> dict[str, Any]:
    """The fields that the hub reads, by the names that it gives them."""
    facts, metrics, dataset = description.facts, description.metrics, dataset_of(description)
    head = _head(description, network)
    begun = re.match(r"hf://([\w.-]+/[\w.-]+)", description.provenance.get("begun from", ""))
    matter: dict[str, Any] = {
        **_licence(description.licences.get("weights", "")),
        "library_name": "contextzoo",
        "pipeline_tag": facts.pipeline,
        "tags": [*([head.slug] if head else []), description.backbone],
    }
    if begun:
        matter["base_model"] = begun[1]
    if dataset is not None:
        matter["datasets"] = [dataset.slug]
    if metrics is None or not metrics.figures:
        return matter
    names = {name: METRICS.get(name, name.lower()) for name in metrics.figures}
    title = dataset.title if dataset else description.data.name or "images of one's own"
    result = {
        "task": {"type": facts.pipeline},
        "dataset": {
            "type": dataset.slug if dataset else "other",
            "name": title,
            "split": metrics.split or metrics.stage,
        },
        "metrics": [
            {"type": names[name], "value": round(float(value), 2), "name": f"{name}, per cent"}
            for name, value in metrics.figures.items()
        ],
    }
    index = [{"name": description.name, "results": [result]}]
    return matter | {"metrics": list(names.values()), "model-index": index}


def _head(description: Description, network: nn.Module) -> Entry | None:
    """The head that the network is known for; None where nobody has registered it."""
    try:
        return description.facts.head(network)
    except InputError:
        return None


def _licence(text: str) -> dict[str, str]:
    if not text:
        return {}
    if LICENCES.fullmatch(text.lower()):
        return {"license": text.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")}


def _facts(description: Description, network: nn.Module, half: bool) -> dict[str, str]:
    metrics, training, licences = description.metrics, description.training, description.licences
    backbone: Any = getattr(network, "backbone", None)
    count = sum(each.numel() for each in network.parameters())
    protocol, head = description.facts.protocol_in_words(), _head(description, network)
    top = head.name if head else type(getattr(network, "head", network)).__name__
    begun = description.provenance.get("begun from")
    figures, source = (metrics.figures, metrics.source) if metrics else ({}, "")
    rows = {
        "head": f"{top} ({head.paper})" if head and head.paper else top,
        "backbone": f"{description.backbone}, output stride {max(backbone.reductions)}",
        **{name: f"{value:.2f} ({source})" for name, value in figures.items()},
        "protocol": protocol,
        "trained": _training(training) if training else "",
        "begun from": begun or "",
        "parameters": f"{count:,}, {'half' if half else 'single'} precision{_shared(description)}",
        "licence of the code": licences.get("code", ""),
        "licence of the weights": licences.get("weights", ""),
        "terms of the training data": licences.get("training data", ""),
    }
    return {name: value for name, value in rows.items() if value}


def _shared(description: Description) -> str:
    parts = description.shared.items()
    return "".join(f"; the {part} in {digest[:12]}..., once for all that share it" for part, digest in parts)


def _training(training: Any) -> str:
    optimizer = OPTIMIZERS.get(training.optimizer, training.optimizer)
    return f"{training.iterations} steps of {training.batch} images, {optimizer}, lr {training.lr:g}"
