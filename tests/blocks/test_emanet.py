"""EMANet's bases in distributed training."""

from pathlib import Path

import torch
from torch import distributed, multiprocessing

from lightning_app.blocks.emanet import EMAU


def unit() -> EMAU:
    torch.manual_seed(0)
    return EMAU(8, bases=4)


def images() -> torch.Tensor:
    return torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(1))


def train_one_image(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    block = unit()
    block(images()[rank : rank + 1])
    torch.save(block.bases, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_bases_are_averaged_over_ranks(tmp_path: Path) -> None:
    """Two ranks with one image each end with the bases of one rank with both."""
    multiprocessing.start_processes(train_one_image, (tmp_path,), nprocs=2, start_method="fork")
    alone = unit()
    before = alone.bases.clone()
    alone(images())
    assert not torch.equal(alone.bases, before)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone.bases)


def test_bases_stay_in_evaluation() -> None:
    block = unit().eval()
    before = block.bases.clone()
    block(images())
    assert torch.equal(block.bases, before)
