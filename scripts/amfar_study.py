"""AMFAR's ablations and fixed teachers on clean, noisy and incomplete queries, as Markdown tables.

    python scripts/amfar_study.py --dataset ave28 --cache CACHE --modalities frame,audio --class-splits s0,s1,s2

Every head is trained with its default recipe on clean episodes and then read in two ways, with certainty weights (AMI)
and with equal weights (late fusion). Under "noisy X", modality X of half of the queries is replaced by noise of unit
length; under "missing X" it is taken away. Cells hold AMI / equal weights, then the branches alone, in per cent, as
means over class splits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.head import Head
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.ready import ready_head
from fsmm.runs.redraw import Source
from fsmm.runs.spec import RunSpec
from fsmm.studies.pairs import Pair, pair_of_outcomes

Change = Callable[[Episodes], Episodes]
CHUNK = 50


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--dataset", required=True)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--modalities", type=lambda t: t.split(","), default=["frame", "audio"])
    options.add_argument("--class-splits", type=lambda t: t.split(","), default=["default"])
    options.add_argument("--shots", type=lambda t: [int(k) for k in t.split(",")], default=[1, 5])
    options.add_argument("--episodes", type=int, default=1000)
    options.add_argument("--out", type=Path, default=Path("runs/amfar"))
    given = options.parse_args()
    if len(given.modalities) != 2:
        options.error("--modalities must name two, such as frame,audio")
    for shots in given.shots:
        table(given, shots)


def table(given: argparse.Namespace, shots: int) -> None:
    """Print one table of variants by conditions."""
    first, second = given.modalities
    changes: dict[str, Change] = {
        "clean": lambda e: e,
        f"noisy {second}": lambda e: half_noisy(e, second),
        f"noisy {first}": lambda e: half_noisy(e, first),
        f"missing {second}": lambda e: half_missing(e, second),
    }
    print(f"\n| {shots}-shot | {' | '.join(changes)} | {first} branch | {second} branch |")
    print(f"| --- |{' --- |' * (len(changes) + 2)}", flush=True)
    for name, settings in variants(first, second).items():
        print(f"| {name} | {' | '.join(cells(given, shots, settings, changes))} |", flush=True)


def variants(first: str, second: str) -> dict[str, dict[str, str]]:
    """The rows of the table, each with the settings that switch a part off or fix a teacher."""
    return {
        "untrained (late fusion)": {"train.steps": "0"},
        "complete": {},
        "without AC": {"ac": "false"},
        "without RC": {"rc": "false"},
        "without AC and RC": {"ac": "false", "rc": "false"},
        "without AMD": {"amd": "false"},
        f"{first} always teaches": {"teacher": first},
        f"{second} always teaches": {"teacher": second},
    }


def cells(
    given: argparse.Namespace, shots: int, settings: dict[str, str], changes: Mapping[str, Change]
) -> list[str]:
    """A variant's cells: accuracies over all class splits, and the paired difference with its interval over clips."""
    found: dict[str, list[float]] = {}
    pairs: dict[str, list[Pair]] = {name: [] for name in changes}
    for split in given.class_splits:
        protocol = Protocol(k_shot=shots, class_split=split)
        spec = RunSpec(
            method="amfar", protocol=protocol, modalities=tuple(given.modalities), settings=settings
        )
        banks = Banks(spec, Place(cache=given.cache, dataset=given.dataset, device="cpu"))
        code = "-".join(f"{k}={v}" for k, v in settings.items()) or "complete"
        head = ready_head(spec, banks, given.out / given.dataset / f"{code}-{shots}-{split}").head
        right = outcomes(head.eval(), banks, protocol, changes, episodes=given.episodes)
        draws = Source.of(banks.test, protocol).draws(0, given.episodes)
        for name, values in right.items():
            found.setdefault(name, []).append(100 * float(values.mean()))
        for name in changes:
            both = right[f"{name}, ami"], right[f"{name}, equal"]
            pairs[name].append(pair_of_outcomes(("ami", "equal"), *both, draws, transductive=False))
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    texts = []
    for name in changes:
        weighted, equal = mean[f"{name}, ami"], mean[f"{name}, equal"]
        # Class splits share clips. The mean half width is that of the mean difference if they share all of them.
        known = [100 * pair.clips.ci95 for pair in pairs[name] if pair.clips and pair.clips.ci95 is not None]
        width = f" ± {np.mean(known):.1f}" if len(known) == len(pairs[name]) else ""
        texts.append(f"{weighted:.1f} / {equal:.1f} ({weighted - equal:+.1f}{width})")
    return texts + [f"{mean[m]:.1f}" for m in given.modalities]


@torch.no_grad()
def outcomes(
    head: Head, banks: Banks, protocol: Protocol, changes: Mapping[str, Change], *, episodes: int
) -> dict[str, np.ndarray]:
    """The outcome of every query, bool [E, Q], under every change, with and without weights, and of clean branches."""
    found: dict[str, list[np.ndarray]] = {}

    def note(name: str, logits: torch.Tensor, label: torch.Tensor) -> None:
        found.setdefault(name, []).append((logits.argmax(-1) == label).numpy())

    settings = head.settings
    for index in Sampler(banks.test, protocol).batches(0, episodes, CHUNK):
        torch.manual_seed(int(index.episode[0]))
        clean = materialise(banks.test, index, protocol)
        for name, change in changes.items():
            task = change(clean)
            for how, ami in (("ami", True), ("equal", False)):
                head.settings = replace(settings, ami=ami)
                note(f"{name}, {how}", head(task), task.query_label)
        for m, logits in head.branches(clean).items():
            note(m, logits, clean.query_label)
    head.settings = settings
    return {name: np.concatenate(values) for name, values in found.items()}


def half(stream: Stream) -> torch.Tensor:
    """A mask, bool [B, Q], of half of the queries."""
    return torch.rand(stream.present.shape) < 0.5


def half_noisy(episodes: Episodes, modality: str) -> Episodes:
    """The episodes with noise of unit length in place of the modality in half of the queries."""
    s = episodes.query[modality]
    noise = F.normalize(torch.randn(s.x.shape), dim=-1) * s.mask()[..., None]
    x = torch.where(half(s)[..., None, None], noise, s.x)
    return replace(episodes, query={**episodes.query, modality: Stream(x, s.present, s.length)})


def half_missing(episodes: Episodes, modality: str) -> Episodes:
    """The episodes without the modality in half of the queries."""
    s = episodes.query[modality]
    keep = ~half(s)
    gone = Stream(s.x * keep[..., None, None], s.present & keep, s.length * keep)
    return replace(episodes, query={**episodes.query, modality: gone})


if __name__ == "__main__":
    main()
