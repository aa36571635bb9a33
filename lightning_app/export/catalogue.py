"""What of a network of each task can be exported."""

from collections.abc import Callable
from typing import Any, Final

from torch import nn

from lightning_app.export.graphs import Classes, Graph, Logits
from lightning_app.export.objects import Objects
from lightning_app.export.poses import Keypoints, Maps
from lightning_app.tasks.instance.network import InstanceSegmentor
from lightning_app.tasks.pose.network import PoseEstimator
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError

GRAPHS: Final[dict[type[nn.Module], dict[str, Callable[[Any], Graph]]]] = {
    Segmentor: {"logits": Logits, "classes": Classes},
    PoseEstimator: {"maps": Maps, "keypoints": Keypoints},
    InstanceSegmentor: {"objects": Objects},
}


def graph_of(network: nn.Module, output: str | None) -> Graph:
    """The graph of a network, in evaluation mode.

    Args:
        output: what it is to give; None is the first of its task.

    Raises:
        InputError: a network of another kind, or one that gives no such thing.
    """
    for kind, graphs in GRAPHS.items():
        if isinstance(network, kind):
            if output is not None and output not in graphs:
                raise InputError(f"--output {output}: {kind.__name__} gives {' or '.join(graphs)}")
            graph: Graph = graphs[output or next(iter(graphs))](network).eval()
            return graph
    kinds = ", ".join(kind.__name__ for kind in GRAPHS)
    raise InputError(f"{type(network).__name__} cannot be exported (known: {kinds})")
