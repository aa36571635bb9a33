"""What a network with pretrained weights knows: the classes of the objects that it finds."""

from dataclasses import dataclass

from lightning_app.tasks.info import Info


@dataclass(frozen=True, kw_only=True)
class InstanceInfo(Info):
    """``Info``, and what the numbers of objects mean.

    Args:
        classes: names in label order.
    """

    task: str = "instance"
    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @staticmethod
    def lengths(outputs: int) -> tuple[int, ...]:
        """Of scores and masks, and of boxes; each layer has the background too."""
        return outputs + 1, 4 * (outputs + 1)
