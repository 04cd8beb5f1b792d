"""``make demo`` turns real videos into an accuracy table, with the command for every row.

The script makes and extracts the synthetic demo set, then evaluates ProtoNet on each modality and fused, and ECKPN
with and without class words; at the end it prints the places of all files.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from fsmm.cache.catalog import Catalog
from fsmm.commands import console
from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError
from fsmm.runs.run import episode_eval

HOMES = {"full": "fsmm-demo", "small": "fsmm-demo-small"}
LABEL_SETS = ("event", "content", "motion", "sound")
ROWS: tuple[tuple[str, str, list[str], dict[str, str], str | None], ...] = (
    ("ProtoNet, frame", "protonet", ["frame"], {}, None),
    ("ProtoNet, flow", "protonet", ["flow"], {}, None),
    ("ProtoNet, audio", "protonet", ["audio"], {}, None),
    ("ProtoNet-EC, all", "protonet", ["frame", "flow", "audio"], {}, "ec"),
    ("ProtoNet-LF, all", "protonet", ["frame", "flow", "audio"], {}, "lf"),
)
LEARNED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ECKPN, all", "eckpn", {}),
    ("ECKPN, no words", "eckpn", {"words": "false"}),
    ("ECKPN, no squeeze, no calibration", "eckpn", {"squeeze": "false", "calibration": "false"}),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--form", choices=("full", "small"), default="full")
    options.add_argument("--home", type=Path, help="a folder of its own for each form")
    options.add_argument("--episodes", type=int, default=None)
    given = options.parse_args()
    started = time.perf_counter()
    home = given.home or Path(HOMES[given.form])
    cache = home / "cache"
    try:
        extract(given.form, home, cache)
        table(given.form, cache, home / "runs", given.episodes or (2000 if given.form == "full" else 300))
    except FsmmError as error:
        sys.exit(f"demo: {error}")
    print(f"Clips: {home / 'clips'}    features: {cache}    runs: {home / 'runs'}")
    print(f"Done in {time.perf_counter() - started:.0f} s. Next: README.md, 'Your own videos'.")


def extract(form: str, home: Path, cache: Path) -> None:
    """Run the extraction by the same command that a user types first."""
    command = ["fsmm", "extract", "--dataset", "demo", "--data", str(home / "clips"), "--cache", str(cache)]
    command += ["--small"] if form == "small" else []
    print("$", shlex.join(command), flush=True)
    done = subprocess.run([sys.executable, "-m", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def table(form: str, cache: Path, runs: Path, episodes: int) -> None:
    """Print the table of methods by label sets; every cell is a run with its folder."""
    protocol = Protocol(n_query=15 if form == "full" else 4)
    catalog = Catalog.read(cache / "demo")
    ways = {name: min(5, len(catalog.labels(name).class_split("novel"))) for name in LABEL_SETS}
    rows = []
    for title, method, modalities, settings, fusion in ROWS:
        cells = []
        for labels in LABEL_SETS:
            out = runs / f"{method}-{fusion or modalities[0]}-{labels}"
            cells.append(
                accuracy(
                    method,
                    cache,
                    protocol=replace(protocol, n_way=ways[labels], label_set=labels),
                    episodes=episodes,
                    modalities=modalities,
                    settings=settings,
                    fusion=fusion,
                    out=out,
                )
            )
        rows.append((title, *cells))
    short = {} if form == "full" else {"train.steps": "50"}
    for title, method, settings in LEARNED:
        name = "-".join([method, *settings])
        cell = accuracy(
            method,
            cache,
            protocol=replace(protocol, label_set="event"),
            episodes=episodes,
            modalities=["frame", "flow", "audio"],
            settings={**settings, **short},
            fusion=None,
            out=runs / name,
        )
        rows.append((title, cell, "", "", ""))
    named = [f"{name}, chance {100 / ways[name]:.0f} %" for name in LABEL_SETS]
    chance = f"± is the 95 % interval over draws of {episodes:,} episodes."
    console.print_table(
        f"1-shot on novel classes of the synthetic demo set ({form} form)",
        ("method, streams", *named),
        rows,
        chance,
    )
    print(
        "A row again: fsmm episode-eval --method protonet --modalities frame --label-set event --n-query "
        f"{protocol.n_query} --episodes {episodes} --cache {cache}"
    )


def accuracy(
    method: str,
    cache: Path,
    *,
    protocol: Protocol,
    episodes: int,
    modalities: list[str],
    settings: dict[str, str],
    fusion: str | None,
    out: Path,
) -> str:
    with console.progress(f"{method} {'+'.join(modalities)} {protocol.label_set}") as bar:
        run = episode_eval(
            method,
            "demo",
            cache,
            protocol=protocol,
            episodes=episodes,
            modalities=modalities,
            settings=settings,
            fusion=fusion,
            out=out,
            progress=lambda phase, done, total, figures: bar(done, total, phase),
        )
    width = run.metrics["ci95"]
    return f"{100 * run.mean:.1f}" + ("" if width is None else f" ± {100 * width:.1f}")


if __name__ == "__main__":
    main()
