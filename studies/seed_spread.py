"""A seed spread measures how far the accuracy of a head depends on the seed of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UsageError
from ..machine.digests import write_sums
from ..machine.files import write_json
from ..runs.evaluation import Evaluation
from ..runs.job import Job
from ..runs.ready import learns
from ..runs.run import Run, finish, folder_of, load, ready
from ..runs.spec import Progress
from ..runs.statistics import Uncertainty, interval_summary
from .numbered import numbered
from .seeded_pairs import mean_over_seeds

SPREAD = "seeds.json"


def seed_spread(job: Job, seeds: int, progress: Progress | None = None) -> list[Run]:
    """The runs of one head trained with ``seeds`` consecutive seeds from the job's on, measured on the same episodes.

    Where the number of episodes is not given, the first seed's run decides it for all. Each seed's run is written to a
    folder of its own below the job's folder, and ``spread_of`` the runs to ``seeds.json`` in the job's folder, with its
    digest beside it. Raises UsageError for fewer than two seeds, and for a method that has nothing to train.
    """
    if seeds < 2:
        raise UsageError(f"--train-seeds is {seeds}; a spread needs at least 2.")
    job, banks = load(job)
    first, folder, runs = job.spec.train_seed, folder_of(job), []
    for number, seed in enumerate(range(first, first + seeds), 1):
        tell = numbered(progress, number, seeds)
        place = replace(job.place, out=folder / f"seed-{seed}")
        step = replace(
            job,
            spec=replace(job.spec, train_seed=seed),
            place=place,
            reliability=False,
            order_certificate=False,
        )
        trained = ready(step, banks, tell)
        if not learns(trained.head):
            raise UsageError(f"Method {job.spec.method!r} has nothing to train, so seeds have no spread.")
        runs.append(finish(trained, tell))
        job = replace(job, episodes=runs[0].metrics["episodes"])
    write_json(folder / SPREAD, spread_of(runs))
    write_sums(folder, [SPREAD], into=f"{SPREAD}.sha256")
    return runs


def spread_of(runs: Sequence[Run]) -> dict[str, Any]:
    """The mean accuracy over training seeds with its intervals, the standard deviation (n - 1), each seed's accuracy.

    The intervals of the mean count other clips, or other classes, and other seeds of the training.
    """
    values = np.array([run.mean for run in runs])
    widths = interval_summary(_uncertainties(runs))
    return {
        "method": runs[0].metrics["method"],
        "seeds": [run.metrics["train_seed"] for run in runs],
        "accuracy": values.tolist(),
        "mean": float(values.mean()),
        "sd_over_seeds": float(values.std(ddof=1)),
        "mean_ci95_clips": widths["ci95_clips"],
        "mean_ci95_classes": widths["ci95_classes"],
        "no_interval": widths["no_interval"],
        "ci95_draws": [run.metrics["ci95"] for run in runs],
        "runs": [str(run.out) for run in runs],
    }


def _uncertainties(runs: Sequence[Run]) -> dict[str, Uncertainty]:
    """The uncertainty of the mean over seeds, over clips and over classes, with that of the seeds in both."""
    results = [run.result for run in runs]
    evaluations = [result for result in results if isinstance(result, Evaluation)]
    draws = evaluations[0].draws if len(evaluations) == len(runs) else None
    if draws is None:
        reason = evaluations[0].imbalance if evaluations else "a whole split is classified at once"
        return dict.fromkeys(("ci95_clips", "ci95_classes"), Uncertainty(reason=reason))
    right = [result.right[: len(draws)] for result in evaluations]
    found = mean_over_seeds(right, draws, transductive=evaluations[0].transductive)
    return {"ci95_clips": found.clips, "ci95_classes": found.classes}
