"""What every test gets: one thread each, since pytest's workers share the cores."""

import torch

pytest_plugins = ["attacks.tally", "attacks.traps"]

torch.set_num_threads(1)
