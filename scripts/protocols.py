"""Print the tables of docs/results/protocols.md: every protocol is run by the command line and gives a Markdown row.

Methods of one modality have equal weights of the modalities.

python scripts/protocols.py --dataset demo --cache CACHE
python scripts/protocols.py --dataset ave28 --cache CACHE
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from fsmm.heads.registry import find

# Each data set has the options of all rows, the modality that queries lose, the other one, and the multi-label sets.
DATASETS: dict[str, dict[str, Any]] = {
    "ave28": {"base": ["--class-split", "s0"], "all": "frame,audio", "a": "audio", "b": "frame"},
    "demo": {"base": [], "all": "frame,flow,audio", "a": "audio", "b": "frame"},
}
COMMON: tuple[tuple[str, str], ...] = (
    ("few-shot", "--method protonet"),
    ("few-shot, 5 shots", "--method protonet --k-shot 5"),
    ("3 to 8 ways, 1 to 5 shots", "--method protonet --n-way 3-8 --k-shot 1-5"),
    ("transductive, balanced queries", "--method ptmap"),
    ("transductive, Dirichlet queries", "--method ptmap --dirichlet 1"),
    ("Dirichlet queries", "--method protonet --dirichlet 1"),
    ("{a} missing in half of the queries", "--method protonet --missing {a}=0.5@query"),
    (
        "{a} missing in half of all clips, training too",
        "--method common-space --missing {a}=0.5 --train-missing {a}=0.5",
    ),
    ("common space", "--method common-space"),
    ("supports {a}, queries {b}", "--method common-space --support-modalities {a} --query-modalities {b}"),
    ("supports {b}, queries {a}", "--method common-space --support-modalities {b} --query-modalities {a}"),
    ("learn from all, test on {a}", "--method common-space --support-modalities {a} --query-modalities {a}"),
    (
        "learn from {a}, test on {a}",
        "--method common-space --support-modalities {a} --query-modalities {a} --train-modalities {a}",
    ),
    ("zero-shot, 5-way", "--method ridge-words --k-shot 0"),
    ("zero-shot, 5-way", "--method common-space --k-shot 0"),
    ("zero-shot, all classes", "--method ridge-words --n-way 0 --k-shot 0"),
    ("zero-shot, all classes", "--method common-space --n-way 0 --k-shot 0"),
    ("generalised zero-shot", "--method ridge-words --n-way 0 --k-shot 0 --generalised"),
    ("generalised zero-shot", "--method common-space --n-way 0 --k-shot 0 --generalised"),
)
OWN: dict[str, tuple[tuple[str, str], ...]] = {
    "ave28": (),
    "demo": (
        ("multi-label, a multi-hot label set", "--method protonet --label-set tags --k-shot 5"),
        ("multi-label, binary relevance of a trained probe", "--method linear-probe --label-set tags --k-shot 5"),
        ("multi-label, three label sets at once", "--method protonet --label-set content+motion+sound --k-shot 5"),
        ("60 unlabelled clips an episode", "--method semi-protonet --unlabelled 60"),
        ("classes that differ in order alone", "--method protonet --label-set order"),
        ("classes that differ in order alone", "--method otam --label-set order"),
    ),
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--out", type=Path, default=Path("runs/protocols"))
    options.add_argument("--episodes", type=int, default=10_000)
    given = options.parse_args()
    facts = DATASETS[given.dataset]
    print("| protocol | `fsmm episode-eval` with | result |\n| --- | --- | --- |")
    for number, (title, text) in enumerate((*COMMON, *OWN[given.dataset])):
        names = {key: facts[key] for key in ("a", "b")}
        chosen = text.format(**names)
        found = run(
            given, [*facts["base"], *chosen.split()], facts["all"], given.out / given.dataset / str(number)
        )
        print(f"| {title.format(**names)} | `{chosen}` | {result(found)} |", flush=True)


def run(given: argparse.Namespace, options: list[str], modalities: str, out: Path) -> dict[str, Any]:
    """The metrics of one run by the command line."""
    command = ["episode-eval", "--dataset", given.dataset, "--cache", str(given.cache), *options]
    if find(options[options.index("--method") + 1])[0].modalities == "one":
        command += ["--set", "fusion.weights=equal"]
    command += ["--modalities", modalities, "--episodes", str(given.episodes), "--out", str(out), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "fsmm", "-q", *command], check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"fsmm {shlex.join(command)}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def result(metrics: dict[str, Any]) -> str:
    """The accuracy with its interval over episode draws, or the protocol's own measure, in per cent."""

    def percent(key: str) -> str:
        return f"{100 * metrics[key]:.1f}"

    if metrics.get("harmonic") is not None:
        return f"S {percent('seen')}, U {percent('unseen')}, HM {percent('harmonic')}"
    if "map" in metrics:
        return f"mAP {percent('map')}, micro F1 {percent('micro_f1')}, macro F1 {percent('macro_f1')}"
    error = metrics.get("ci95")
    return percent("accuracy") + (f" ± {100 * error:.1f}" if error else "")


if __name__ == "__main__":
    main()
