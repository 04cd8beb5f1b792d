"""A reference case: official inputs, parameters and outputs from one .npz, and helpers that mappings share."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.errors import FsmmError
from fsmm.heads.parts.task import Task, encoded_task

ONLY = "frame"  # the modality of the episodes that one_task makes


@dataclass(frozen=True)
class Case:
    """inputs, params: name -> tensor, float64 unless bool or int. meta: hyper-parameters and notes.

    expected: name -> tensor, "out." stripped, gradients under "grad.<name>". tolerance: largest relative difference
    allowed, 1e-6, or 1e-4 where the official numbers were computed in float32.
    """

    stem: str
    inputs: dict[str, Tensor]
    params: dict[str, Tensor]
    meta: dict[str, Any]
    expected: dict[str, Tensor]
    tolerance: float

    def wanted(self, prefix: str) -> list[str]:
        """Names in ``expected`` that begin with ``prefix``, the prefix taken off."""
        return [name.removeprefix(prefix) for name in self.expected if name.startswith(prefix)]


def load_case(path: Path | str) -> Case:
    """The case in an .npz file. Raises FsmmError where it cannot be read or is not a reference case."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FsmmError(
            f"{path} is not a readable reference case ({reason}); give an .npz that holds one."
        ) from None
    outputs = _group(arrays, "out.")
    single = any(a.dtype == np.float32 for name, a in arrays.items() if name.startswith("out."))
    if not outputs or not isinstance(meta, dict):
        raise FsmmError(f"{path} holds no 'out.' arrays; give an .npz that is a reference case.")
    expected = outputs | {f"grad.{name}": value for name, value in _group(arrays, "grad.").items()}
    stem = re.sub(r"_\d+$", "", path.stem)
    return Case(
        stem=stem,
        inputs=_group(arrays, "in."),
        params=_group(arrays, "param."),
        meta=meta,
        expected=expected,
        tolerance=1e-4 if single else 1e-6,
    )


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): _tensor(a) for name, a in arrays.items() if name.startswith(prefix)}


def _tensor(array: np.ndarray) -> Tensor:
    value = torch.from_numpy(np.array(array))
    if value.is_floating_point():
        return value.double()
    return value if value.dtype == torch.bool else value.long()


def by_class(x: Tensor, label: Tensor) -> Tensor:
    """x [N*K, ...] of labels [N*K] in any order as [N, K, ...], classes in the order of their label values."""
    ways = len(label.unique())
    return x[torch.argsort(label, stable=True)].unflatten(0, (ways, -1))


def query_classes(case: Case) -> Tensor:
    """Labels [Q] as positions among the classes of the supports; in files without support labels they are positions."""
    label, support = case.inputs["query_labels"], case.inputs.get("support_labels")
    return label if support is None else torch.searchsorted(support.unique(), label)


def one_task(support: Tensor, query: Tensor, label: Tensor | None = None) -> Episodes:
    """One task of one modality from support [N, K, T, D] or [N, K, D], query [Q, T, D] or [Q, D], labels [Q]."""
    return tasks(support[None], query[None], None if label is None else label[None])


def tasks(support: Tensor, query: Tensor, label: Tensor | None = None) -> Episodes:
    """B tasks of one modality: support [B, N, K, T, D] or [B, N, K, D]; query [B, Q, T, D] or [B, Q, D]."""
    batch, ways = support.shape[:2]
    if label is None:
        label = torch.zeros(batch, query.shape[1], dtype=torch.int64)
    class_id = torch.arange(ways).expand(batch, ways)
    return Episodes({ONLY: _stream(support, 3)}, {ONLY: _stream(query, 2)}, label, class_id)


def _stream(x: Tensor, axes: int) -> Stream:
    x = x.unsqueeze(-2) if x.ndim == axes + 1 else x
    present = torch.ones(x.shape[:axes], dtype=torch.bool)
    return Stream(x, present, present.long() * x.shape[-2])


class Fitted(Protocol):
    """What TIM and alpha-TIM have in common."""

    def encode(self, clips: Stream) -> Tensor: ...

    def fit(self, task: Task) -> Tensor: ...


def tim_outputs(case: Case, head: Callable[[int], Fitted]) -> dict[str, Tensor]:
    """What the cases of TIM and alpha-TIM hold: weights before and after every step, and what follows from them.

    head: the head that makes a given number of steps, at least one.
    """
    support = by_class(case.inputs["support"], case.inputs["support_labels"])
    task = encoded_task(one_task(support, case.inputs["query"]), head(1).encode)
    steps = [task.means(), *(head(count).fit(task) for count in range(1, case.meta["iter"] + 1))]
    weights = torch.cat(steps)
    logits = -0.5 * case.meta["temp"] * torch.cdist(task.query, weights).square()
    p = logits.softmax(-1)
    entropy, conditional = _shannon(p.mean(1)), _shannon(p).mean(1)
    return {
        "weights": weights,
        "query_logits": logits[-1],
        "query_probs": p[-1],
        "mutual_info": entropy - conditional,
        "entropy": entropy,
        "cond_entropy": conditional,
        "accuracy": (p.argmax(-1) == query_classes(case)).double().mean(1),
    }


def _shannon(p: Tensor) -> Tensor:
    return -(p * (p + 1e-12).log()).sum(-1)
