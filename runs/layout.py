"""The names in a run's folder, and of the folder of runs."""

from __future__ import annotations

CONFIG = "config.json"
"""The file of all that defines the run."""
METRICS = "metrics.json"
"""The file of the figures; a folder that has it is complete."""
EPISODES = "episodes.npz"
"""The file of the figure of every episode."""
FILES = (CONFIG, METRICS, EPISODES)
"""The files that every run has."""
CHECKPOINT = "head.safetensors"
"""The file of the trained head."""
TRAINING = "training"
"""The folder of the state of the training."""
RUNS = "runs"
"""The folder of a data set's runs, in the data set's folder of the cache."""
