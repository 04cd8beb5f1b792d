"""Random episodes of one modality for the tests of the graph and meta-learning heads."""

from __future__ import annotations

from dataclasses import replace

import torch
from tests_support import moved
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs

DIM = 10


def inputs(way: int = 3, dim: int = DIM) -> Inputs:
    return Inputs(streams={"frame": (1, dim)}, way=way)


def stream(x: Tensor, present: Tensor | None = None) -> Stream:
    """A Stream of x [..., D] with one step a clip."""
    present = torch.ones(x.shape[:-1], dtype=torch.bool) if present is None else present
    return Stream((x * present[..., None])[..., None, :], present, present.long())


def random_task(batch: int = 2, ways: int = 3, shots: int = 2, per_class: int = 2, seed: int = 0) -> Episodes:
    """Episodes of Gaussian classes with features of length one."""
    chance = torch.Generator().manual_seed(seed)
    label = torch.stack([torch.randperm(ways * per_class, generator=chance) % ways for _ in range(batch)])
    centre = torch.randn(batch, ways, DIM, generator=chance, dtype=torch.float64)
    support = centre[:, :, None] + torch.randn(batch, ways, shots, DIM, generator=chance, dtype=torch.float64)
    query = torch.gather(centre, 1, label[..., None].expand(-1, -1, DIM))
    query = query + torch.randn(query.shape, generator=chance, dtype=torch.float64)
    unit = torch.nn.functional.normalize
    ids = torch.arange(ways).expand(batch, ways)
    return Episodes(
        {"frame": stream(unit(support, dim=-1))}, {"frame": stream(unit(query, dim=-1))}, label, ids
    )


def parts(task: Episodes) -> tuple[Tensor, Tensor]:
    """The features of the supports [B, N, K, D] and of the queries [B, Q, D]."""
    return task.support["frame"].x[..., 0, :], task.query["frame"].x[..., 0, :]


def with_absent_support(task: Episodes) -> tuple[Episodes, Episodes]:
    """Two tasks that should mean the same: each class's last support is marked absent, or left out altogether."""
    s = task.support["frame"]
    present = s.present.clone()
    present[:, :, -1] = False
    return (
        replace(task, support={"frame": stream(s.x[..., 0, :], present)}),
        replace(task, support={"frame": stream(s.x[:, :, :-1, 0, :])}),
    )


def perturbed(head: torch.nn.Module, size: float = 0.1, seed: int = 0) -> torch.nn.Module:
    """The head in double precision and evaluation mode, with every weight moved by noise of this size."""
    return moved(head.double().eval(), size, chance=torch.Generator().manual_seed(seed))
