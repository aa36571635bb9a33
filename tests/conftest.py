"""What every test gets: one thread each, since pytest's workers share the cores."""

import torch

torch.set_num_threads(1)
