"""What every test gets: one thread, since workers share the cores, and no modules that another test imported."""

import pytest
import torch

pytest_plugins = ["attacks.tally", "attacks.traps"]

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command leaves their names in the environment, for the processes that it starts."""
    monkeypatch.setenv("CONTEXTZOO_IMPORT", "")
