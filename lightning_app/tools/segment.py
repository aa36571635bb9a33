"""``contextzoo segment``: what ``infer`` does, for class maps alone."""

from collections.abc import Sequence
from pathlib import Path

from lightning_app.tasks.semantic.infer import SemanticInfer
from lightning_app.tools import infer


def main(args: Sequence[str]) -> int:
    """Segment everything that was named; 1 where some of it could not be."""
    return infer.run("segment", args, {"semantic": SemanticInfer}, Path("segmented"))
