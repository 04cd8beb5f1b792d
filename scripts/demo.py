"""``make demo`` turns real videos into an accuracy table; ``make demo-full`` does so with the whole demo set.

The script makes and extracts the synthetic demo set, then evaluates ProtoNet on each modality and fused, and ECKPN
with and without class words. It ends with the study ``quick`` and its report, and prints the places of all files and
what to type next.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsmm.cache.catalog import Catalog
from fsmm.commands import console
from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import Fusion, RunSpec

LABEL_SETS = ("event", "content", "motion", "sound")
ALL = ("frame", "flow", "audio")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of the demo set, and how its table is made."""

    home: Path
    """The default folder of the clips, the cache and the runs."""
    episodes: int
    """The number of episodes of every run."""
    n_query: int
    """The queries of a class in an episode."""
    training: dict[str, str]
    """The settings that fix the length of trainings, so that the time of the whole is known."""
    option: tuple[str, ...] = ()
    """The option of ``fsmm extract`` that asks for this form."""


FORMS = {
    "small": Form(
        home=Path("fsmm-demo"), episodes=300, n_query=4, training={"train.steps": "50"}, option=("--small",)
    ),
    "full": Form(home=Path("fsmm-demo-full"), episodes=2000, n_query=15, training={"train.steps": "200"}),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: one method with its streams and settings, on some label sets."""

    title: str
    """The text of the row's first column."""
    method: str
    """The method."""
    folder: str
    """The beginning of the names of the runs' folders."""
    modalities: tuple[str, ...] = ALL
    """The modalities of the runs."""
    fusion: Fusion | None = None
    """How a method of one modality takes several."""
    settings: dict[str, str] = field(default_factory=dict)
    """The settings of the method."""
    label_sets: tuple[str, ...] = LABEL_SETS
    """The label sets that have a cell."""


ROWS = (
    *(Row(title=f"ProtoNet, {m}", method="protonet", folder=f"protonet-{m}", modalities=(m,)) for m in ALL),
    Row(title="ProtoNet-EC, all", method="protonet", folder="protonet-ec", fusion="ec"),
    Row(title="ProtoNet-LF, all", method="protonet", folder="protonet-lf", fusion="lf"),
    Row(title="ECKPN, all", method="eckpn", folder="eckpn", label_sets=("event",)),
    Row(
        title="ECKPN, with words",
        method="eckpn",
        folder="eckpn-words",
        settings={"word_weight": "0.1"},
        label_sets=("event",),
    ),
    Row(
        title="ECKPN, no squeeze, no calibration",
        method="eckpn",
        folder="eckpn-squeeze-calibration",
        settings={"squeeze": "false", "calibration": "false"},
        label_sets=("event",),
    ),
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--form", choices=FORMS, default="small")
    options.add_argument("--home", type=Path, help="the folder of clips, cache and runs")
    options.add_argument("--episodes", type=int, help="the number of episodes of a run")
    given = options.parse_args()
    started = time.perf_counter()
    form = FORMS[given.form]
    form = replace(form, home=given.home or form.home, episodes=given.episodes or form.episodes)
    try:
        extract(form)
        show_table(given.form, form)
    except FsmmError as error:
        sys.exit(f"demo: {error}")
    fewer = [] if given.episodes is None else ["--set", f"episodes={given.episodes}"]
    print_places(form, sweep(form, fewer))
    print(f"Done in {time.perf_counter() - started:.0f} s. Next: README.md, 'First steps'.")


def extract(form: Form) -> None:
    """Run the extraction by the same command that a user types first."""
    command = ["extract", "--dataset", "demo", "--data", str(form.home / "clips"), *form.option]
    fsmm(*command, "--cache", str(form.home / "cache"))


def sweep(form: Form, options: Sequence[str]) -> Path:
    """Do the study ``quick`` and make its report by the commands of a user; the page is returned."""
    study = form.home / "quick"
    command = ["sweep", "quick", "--cache", str(form.home / "cache"), "--out", str(study), *options]
    fsmm("-q", *command, shown=False)
    fsmm("-q", "report", str(study), shown=False)
    return study / "report" / "report.html"


def fsmm(*words: str, shown: bool = True) -> None:
    """Print a command and run it; where it fails, so does the demo. shown: whether its results are printed."""
    print("$", shlex.join(["fsmm", *words]), flush=True)
    out = None if shown else subprocess.DEVNULL
    done = subprocess.run([sys.executable, "-m", "fsmm", *words], check=False, stdout=out)
    if done.returncode:
        sys.exit(done.returncode)


def show_table(name: str, form: Form) -> None:
    """Print the table of methods by label sets; every cell is a run with its folder."""
    catalog = Catalog.read(form.home / "cache" / "demo")
    ways = {labels: min(5, len(catalog.labels(labels).class_split("novel"))) for labels in LABEL_SETS}
    jobs = list(jobs_of(form, ways))
    cells: dict[tuple[str, str], str] = {}
    for number, (row, labels, job) in enumerate(jobs, 1):
        cells[row.title, labels] = accuracy(job, f"run {number} of {len(jobs)}, {row.title}, {labels}")
    columns = [f"{labels}, chance {100 / ways[labels]:.0f} %" for labels in LABEL_SETS]
    rows = [(row.title, *(cells.get((row.title, labels), "") for labels in LABEL_SETS)) for row in ROWS]
    title = f"1-shot on novel classes of the synthetic demo set ({name} form)"
    caption = f"± is the 95 % interval over draws of {form.episodes:,} episodes."
    console.print_table(title, ("method, streams", *columns), rows, caption)


def jobs_of(form: Form, ways: dict[str, int]) -> Iterator[tuple[Row, str, Job]]:
    """The run of each cell of the table, with its row and its label set."""
    for row in ROWS:
        training = form.training if row.method == "eckpn" else {}
        for labels in row.label_sets:
            spec = RunSpec(
                method=row.method,
                protocol=Protocol(n_way=ways[labels], n_query=form.n_query, label_set=labels),
                modalities=row.modalities,
                fusion=row.fusion,
                settings={**row.settings, **training},
            )
            name = row.folder if row.label_sets == ("event",) else f"{row.folder}-{labels}"
            place = Place(cache=form.home / "cache", dataset="demo", out=form.home / "runs" / name)
            yield row, labels, Job(spec=spec, place=place, episodes=form.episodes)


def accuracy(job: Job, label: str) -> str:
    """The accuracy of a run with its interval over draws, in per cent."""
    with console.progress(label) as shown:
        metrics = run(job, lambda phase, done, total, figures: shown(done, total, phase)).metrics
    width = metrics["ci95"]
    return f"{100 * metrics['accuracy']:.1f}" + ("" if width is None else f" ± {100 * width:.1f}")


def print_places(form: Form, page: Path) -> None:
    """Print where the files lie, how the program is called, and the command of one cell."""
    program = Path(sys.executable).with_name("fsmm")
    home = form.home
    print(f"Clips: {home / 'clips'}    features: {home / 'cache'}    runs: {home / 'runs'}")
    print(f"The program is {program}; `. {program.with_name('activate')}` lets you call it fsmm.")
    command = ["fsmm", "episode-eval", "--method", "protonet", "--modalities", "frame"]
    command += ["--n-query", str(form.n_query), "--episodes", str(form.episodes)]
    command += ["--cache", str(home / "cache")]
    print("The first cell again:", shlex.join(command))
    print(f"The report of the study `quick` on these clips, for your browser: {page}")


if __name__ == "__main__":
    main()
