"""One law for every shortcut of every method: it gives forward's posteriors, and some test takes it.

The direct side of every comparison is ``forward`` on the gathered features. Weights are moved, so that every path
matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests_support import moved, random_bank
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import EpisodeIndex, Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.heads.registry import METHODS, find
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.plan import best_shortcut, direct, scorer
from fsmm.heads.scoring.shortcut import Shortcut

CLASSES, CLIPS, WORD = 6, 12, 8
SHAPES = {"frame": (5, 16), "audio": (3, 12)}
TASK = Protocol(n_way=4, k_shot=1, n_query=5)
# The lengths go from a test that draws fewer clips than the bank has to one that needs every pair many times.
LENGTHS = (1, 10, 100_000)
SHOTS = (1, 3)
EXTRA: list[tuple[str, dict[str, str]]] = [
    ("protonet", {"distance": "cosine"}),
    ("protonet", {"distance": "cosine", "epsilon": "0.01"}),
    ("protonet", {"embed": "4"}),
    ("nearest", {"distance": "cosine"}),
    ("matching", {"distance": "l2"}),
    ("matching", {"distance": "dot", "scale": "3"}),
    ("matching", {"query_raw": "true"}),
    ("relation", {"pool": "mean"}),
    ("relation", {"start": "false"}),
    ("simpleshot", {"transform": "un"}),
    ("common-space", {"decision": "nearest"}),
    ("common-space", {"decision": "prototype"}),
    ("otam", {"direction": "both"}),
    ("otam", {"direction": "reversed", "gamma": "0"}),
    *(
        ("chamfer", {"matching": matching})
        for matching in ("chamfer", "chamfer-query", "mean", "max", "diagonal", "linear", "otam", "visil")
    ),
    ("chamfer", {"project": "6"}),
    ("uot", {"supports": "joint"}),
    ("uot", {"penalty": "inf", "score": "similarity"}),
    ("team", {"discriminate": "no"}),
    ("mpl", {"keys": "released"}),
    ("tsdcm", {"patches": "3"}),
    ("tarn", {"padded": "true"}),
    ("hyrsm", {"form": "videos"}),
    ("clipfsar", {"merge": "before"}),
    ("amefunet", {"head": "cosine"}),
    ("amfar", {"distance": "otam"}),
    ("amfar", {"distance": "trx", "ami": "false"}),
    *((f"{name}-{fusion}", {}) for name in ("protonet", "otam", "trx") for fusion in ("ec", "ea", "lf")),
    ("simpleshot-lf", {}),
    ("eckpn-ec", {}),
    ("matching-lf", {"fusion.rule": "product"}),
]
# Iterated methods do as few steps as show the law, which holds after each of them.
SHORT = {
    "tim": {"iterations": "20"},
    "alpha-tim": {"iterations": "20"},
    "maml": {},
    "finetune": {"steps": "10"},
}
CASES = [(name, SHORT.get(name, {})) for name in METHODS] + EXTRA


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bank_for(name: str) -> FeatureBank:
    """Clips of unequal lengths with what the method reads: one stream or two, steps or their mean, words."""
    method, fusion = find(name)
    several = fusion is not None or method.modalities != "one"
    shapes = {
        modality: (steps if method.reads_time else 1, dim)
        for modality, (steps, dim) in SHAPES.items()
        if modality == "frame" or several
    }
    word_dim = None if method.words == "no" else WORD
    return random_bank(shapes, classes=CLASSES, clips=CLIPS, word_dim=word_dim, seed=3)


def head_for(name: str, settings: dict[str, str], bank: FeatureBank) -> Head[Any]:
    """The head after its closed-form statistics, with every weight moved, so that nothing starts at zero."""
    torch.manual_seed(0)
    head = build_head(name, inputs_of(bank, base_classes=CLASSES, way=TASK.n_way), settings).eval()
    if find(name)[0].fits_base:
        head.fit_base(bank)
    return moved(head, 0.05)


def complete_tests(bank: FeatureBank) -> list[EpisodeTest]:
    """Complete tests of one and of several shots, from very short to very long."""
    return [
        EpisodeTest(bank=bank, protocol=replace(TASK, k_shot=shots), episodes=episodes)
        for shots in SHOTS
        for episodes in LENGTHS
    ]


def some_episodes(test: EpisodeTest) -> EpisodeIndex:
    return next(Sampler(test.bank, test.protocol).batches(0, 6, 6))


def agree(found: Tensor, logits: Tensor) -> None:
    """Logits agree but for a constant a query, relative to how far they spread over the classes."""
    a, b = (x.double() - x.double().mean(-1, keepdim=True) for x in (found, logits))
    scale = float(b.abs().max())
    assert scale > 0
    assert float((a - b).abs().max()) <= 2e-3 * scale + 1e-6


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{n} {s}" if s else n for n, s in CASES])
def test_every_shortcut_gives_forwards_logits_and_is_taken(name: str, settings: dict[str, str]) -> None:
    bank = bank_for(name)
    head = head_for(name, settings, bank)
    open_ways: dict[type[Shortcut], bool] = {type(way): False for way in head.shortcuts()}
    for test in complete_tests(bank):
        index, taken = some_episodes(test), best_shortcut(head, test)
        for way in head.shortcuts():
            if way.saves(test) > 0:
                agree(way.prepare(test)(index), direct(head, test)(index))
                open_ways[type(way)] |= type(way) is type(taken)
    assert all(open_ways.values()), (
        f"never taken: {[way.__name__ for way, was in open_ways.items() if not was]}"
    )


@pytest.mark.parametrize(
    "name", ["protonet", "simpleshot", "relation", "trx", "otam", "protonet-lf", "amfar"]
)
def test_no_shortcut_is_open_where_something_is_withheld(name: str) -> None:
    bank = bank_for(name)
    head = head_for(name, {}, bank)
    changes: tuple[dict[str, Any], ...] = (
        {"missing": (Missing("frame", 0.5),)},
        {"support_modalities": ("frame",)},
        {"dirichlet": 1.0},
        {"small_classes": "short"},
    )
    for change in changes:
        test = EpisodeTest(bank=bank, protocol=replace(TASK, **change), episodes=100_000)
        assert all(way.saves(test) == 0 for way in head.shortcuts()), change


@pytest.mark.parametrize("name", ["protonet", "matching", "feat", "trx"])
def test_no_shortcut_is_open_where_a_clip_is_absent(name: str) -> None:
    bank = bank_for(name)
    head, table = head_for(name, {}, bank), bank.tables["frame"]
    assert isinstance(table, TensorTable)
    present = table.present.clone()
    present[0] = False
    holed = replace(bank, tables={"frame": TensorTable(table.x, table.length * present, present)})
    test = EpisodeTest(bank=holed, protocol=TASK, episodes=100_000)
    assert all(way.saves(test) == 0 for way in head.shortcuts())
    assert scorer(head, test)(some_episodes(test)).shape == (6, 20, 4)


@pytest.mark.parametrize("name", ["simpleshot", "matching", "relation", "semi-protonet", "common-space"])
def test_a_test_from_products_reads_no_features(name: str) -> None:
    bank = bank_for(name)
    head = head_for(name, {}, bank)
    test = EpisodeTest(bank=bank, protocol=TASK, episodes=100_000)
    index, score = some_episodes(test), scorer(head, test)
    none = torch.zeros(0, dtype=torch.int64)
    bank.tables["frame"] = TensorTable(torch.zeros(0, 1, 16), none, none > 0)
    assert score(index).shape == (6, 20, 4)


def test_a_short_test_draws_too_few_clips_for_work_on_all_of_them() -> None:
    bank = bank_for("feat")  # 72 clips; an episode draws 4 * (1 + 5)
    head = head_for("feat", {}, bank)
    few, enough = (EpisodeTest(bank=bank, protocol=TASK, episodes=episodes) for episodes in (2, 4))
    assert best_shortcut(head, few) is None
    assert best_shortcut(head, enough) is not None
