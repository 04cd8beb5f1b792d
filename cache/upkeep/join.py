"""The finished shards of a shared extraction become a part of the data set in whose folder they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import CacheError
from ..job import JobFolder
from ..schema import dataset_folders
from .merge import MergeReport, merge, unite_failures


def join_shards(
    cache: Path, dataset: str | None = None, progress: Callable[[str], None] = lambda text: None
) -> MergeReport:
    """Join the finished shards of all data sets of a cache, or of one of them; their features are then deleted.

    Raises CacheError where no shard is finished, and what ``merge`` raises.
    """
    jobs = [JobFolder(folder) for folder in dataset_folders(cache, dataset)]
    jobs = [job for job in jobs if job.all_finished()]
    if not jobs:
        raise CacheError(
            f"No finished shard of an extraction waits in {str(cache)!r}; name the caches that are to be added."
        )
    report = MergeReport(str(cache))
    for job in jobs:
        joined = join_job_shards(job, progress)
        report.datasets += joined.datasets
        report.clips |= joined.clips
        report.copied |= joined.copied
        report.duplicates |= joined.duplicates
    return report


def join_job_shards(job: JobFolder, progress: Callable[[str], None] = lambda text: None) -> MergeReport:
    """Join the finished shards of one job. Raises what ``merge`` raises; nothing is deleted then."""
    folder = job.dataset_folder
    finished = job.all_finished()
    if any((shard / folder.name / "catalog.h5").is_file() for shard in finished):
        report = merge(finished, folder.parent, folder.name, progress)
    else:  # No clip of any shard could be used.
        unite_failures([shard / folder.name for shard in finished], folder)
        report = MergeReport(str(folder.parent), [folder.name])
    try:
        job.take_as_joined()
    except OSError as error:
        raise CacheError(
            f"The joined shards in {str(job.shards)!r} cannot be put away ({error.strerror or error})."
        ) from error
    return report
