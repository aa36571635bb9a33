"""A run's folder on this machine."""

import os
from pathlib import Path

RUNS = Path(os.environ.get("CONTEXTZOO_RUNS") or "runs")  # in which the folders of runs lie
