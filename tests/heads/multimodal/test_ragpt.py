"""RAGPT: whom a clip finds, what stands in for a missing modality, and that the learned part learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import random_bank
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import Stream
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of

SHAPES = {"frame": (4, 12), "audio": (3, 8)}
TASK = Protocol(n_way=3, k_shot=2, n_query=4)


@pytest.fixture(scope="module")
def base() -> FeatureBank:
    return random_bank(SHAPES, classes=4, clips=10, split="base", short=False, dtype=torch.float64, seed=3)


def head_of(base: FeatureBank, **settings: object) -> Any:
    torch.manual_seed(0)
    given = {key: str(value).lower() for key, value in settings.items()}
    head = build_head("ragpt", inputs_of(base, way=3), given).double().eval()
    head.fit_base(base)
    return head


def clips_of(bank: FeatureBank, rows: list[int]) -> dict[str, Stream]:
    return {m: table.gather(torch.tensor(rows)) for m, table in bank.tables.items()}


def without(clips: dict[str, Stream], name: str) -> dict[str, Stream]:
    s = clips[name]
    return {**clips, name: Stream(s.x * 0, s.present & False, s.length * 0)}


def test_the_untrained_head_is_protonet_on_clips_filled_by_their_neighbours(base: FeatureBank) -> None:
    head, given = head_of(base, neighbours=3), without(clips_of(base, [5, 21]), "audio")
    place, present = head.embed(given)
    memory = {m: F.normalize(base.tables[m].pooled().x[:, 0], dim=-1) for m in SHAPES}
    assert bool(present.all())
    for i, row in enumerate([5, 21]):
        cosine = memory["frame"] @ memory["frame"][row]
        cosine[row] = -2.0  # Never itself.
        near = base.tables["audio"].pooled().x[cosine.topk(3).indices, 0]
        expected = F.normalize(near.sum(0), dim=-1)
        assert torch.allclose(place[i, :12], given["frame"].pooled()[i])
        assert torch.allclose(place[i, 12:], expected)


def test_the_memory_holds_as_many_clips_of_each_class(base: FeatureBank) -> None:
    head = head_of(base, memory=10)
    assert bool(head.known.all())
    assert torch.bincount(head.label).tolist() == [3, 3, 2, 2]
    assert int(head_of(base, memory=100).known.sum()) == len(base)


def test_more_base_classes_than_label_embeddings_are_told(base: FeatureBank) -> None:
    with pytest.raises(UsageError, match="4 base classes and 3 label embeddings"):
        head_of(base, classes=3)


def test_every_learned_part_gets_a_gradient(base: FeatureBank) -> None:
    head = head_of(base, lost=0.5, dropout=0)
    torch.nn.init.normal_(head.leave.weight, std=0.1)
    index = next(iter(Sampler(base, TASK).batches(0, 4, 4)))
    head.train().loss(materialise(base, index, TASK)).total.backward()
    for name in ("enter", "generator", "prompter", "label_code", "blocks", "leave"):
        slopes = [p.grad for p in getattr(head, name).parameters() if p.grad is not None]
        assert any(float(slope.abs().max()) > 0 for slope in slopes), name


@pytest.mark.parametrize("setting", ["generate", "prompt", "label_prompt"])
def test_a_part_that_is_switched_off_changes_what_is_said(base: FeatureBank, setting: str) -> None:
    given = without(clips_of(base, [5, 21]), "audio")
    off = head_of(base, **{setting: 0 if setting == "prompt" else False})
    on = head_of(base)
    for head in (on, off):
        torch.manual_seed(1)
        torch.nn.init.normal_(head.leave.weight, std=0.1)
    assert not torch.allclose(on.embed(given)[0], off.embed(given)[0])


def test_training_takes_one_modality_of_a_share_of_the_clips(base: FeatureBank) -> None:
    head, given = head_of(base, lost=0.99), clips_of(base, [*range(40)])
    robbed = head._robbed(given)
    present = torch.stack([s.present for s in robbed.values()])
    assert bool(present.any(0).all())
    assert 0 < int(present[0].sum()) < 40
    assert int(present.sum()) < 50
