"""The report of a study of 500 runs: how long it takes to make, and to sort its table in a browser.

    python -m benchmarks.reports

The runs are one ProtoNet run of 1,000 episodes whose outcomes are changed by chance, a tenth of them without training,
so that all are paired over clips. Sorting is the median over five clicks in headless Chromium, from the click until the
rows stand in the page anew; it is left out where there is no Chromium.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.runs.store import load_run, save_run
from fsmm.studies.report.make import report

from .startup import make_cache
from .table import Row, cpu_seconds, print_rows

RUNS, EPISODES = 500, 1000
CLICKS = """() => {
    const button = document.querySelector('th[data-key="accuracy"] button');
    const seen = [0, 1, 2, 3, 4].map(() => {
        const began = performance.now();
        button.click();
        document.getElementById("table").offsetHeight;
        return performance.now() - began;
    });
    return seen.sort((a, b) => a - b)[2];
}"""


def make_study(folder: Path) -> Path:
    """Make a cache and a study of RUNS runs below ``folder``, and return the study's folder."""
    make_cache(folder, 6000)
    spec = RunSpec(method="protonet", protocol=Protocol(k_shot=5), modalities=("frame",))
    place = Place(cache=folder, dataset="synthetic", out=folder / "first")
    run(Job(spec=spec, place=place, episodes=EPISODES))
    config, metrics, arrays = load_run(folder / "first")
    rng = np.random.default_rng(0)
    queries = config["protocol"]["n_way"] * config["protocol"]["n_query"]
    right = np.unpackbits(arrays["right_bits"], axis=1, count=queries)
    for number in range(RUNS):
        changed = right & (rng.random(right.shape) >= 0.002 * (number % 40))
        figures = {"right_bits": np.packbits(changed, axis=1), "accuracy": changed.mean(1).astype(np.float32)}
        method = "protonet" if number % 10 == 0 else "relation"
        settings = {**config, "method": method, "settings": {"number": str(number)}}
        told = {**metrics, "method": method, "accuracy": float(changed.mean())}
        save_run(folder / "study" / f"run-{number:03d}", settings, told, {**arrays, **figures})
    return folder / "study"


def rows() -> list[Row]:
    """The runs a second of making the report, and of sorting its table where there is a browser."""
    with tempfile.TemporaryDirectory() as name:
        study = make_study(Path(name))
        started, worked = time.perf_counter(), cpu_seconds()
        page = report(study).page
        wall, cpu = time.perf_counter() - started, cpu_seconds() - worked
        made = Row(f"made in {wall:.1f} s, of which {cpu:.1f} s of one core", RUNS / wall, "runs/s")
        size = Row("size of the page", page.stat().st_size / 1e6, "MB")
        seconds = sorting_seconds(page)
    if seconds is None:
        return [made, size]
    return [made, size, Row(f"sorted in {1000 * seconds:.0f} ms", RUNS / seconds, "runs/s")]


def sorting_seconds(page: Path) -> float | None:
    """The time of sorting the table by a click; None where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if browser is None:
        return None
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        shown = opened.new_page()
        shown.goto(page.as_uri())
        found = float(shown.evaluate(CLICKS)) / 1000
        opened.close()
    return found


if __name__ == "__main__":
    print_rows(f"The report of {RUNS} runs of {EPISODES:,} episodes", rows())
