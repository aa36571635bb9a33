"""What a run reports and keeps beside its training: one callback, one file."""

from lightning_app.callbacks.final_checkpoint import FinalCheckpoint
from lightning_app.callbacks.generators import GeneratorStates
from lightning_app.callbacks.predictions import PredictionWriter
from lightning_app.callbacks.progress import Progress
from lightning_app.callbacks.save_config import SaveConfig
from lightning_app.callbacks.table import ClassTable
from lightning_app.callbacks.throughput import Throughput
from lightning_app.callbacks.wandb import WandbReport, WandbRunLogger
from lightning_app.callbacks.wandb_predictions import WandbPredictions

__all__ = [
    "ClassTable",
    "FinalCheckpoint",
    "GeneratorStates",
    "PredictionWriter",
    "Progress",
    "SaveConfig",
    "Throughput",
    "WandbPredictions",
    "WandbReport",
    "WandbRunLogger",
]
