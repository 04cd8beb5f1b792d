"""What a run or a training costs: measured on its first episodes and steps, or taken from a similar one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ...episodes.protocol import Protocol, bounds
from ...heads.head import Head
from ...machine.memory import own_peak_mb
from ...runs.banks import Banks
from ...runs.digest import digest
from ...runs.extent import planned
from ...runs.filling_choice import provisional
from ...runs.filling_promise import episodes_beside
from ...runs.measure import is_generalised, measure, whole_split
from ...runs.order_certificate import CHANGES
from ...runs.ready import built_head, learns, recipe_of
from ...runs.shared import SharedBanks
from ...runs.spec import RunSpec
from ...runs.train import train
from .work import Task

_MORE = (4, 24)  # The episodes or steps by which measurements are longer than that of a single one.
_WORTH = 1.5  # The seconds that the longer of two measurements may take beyond a single one.
_LONGEST = 5.0  # The seconds of a first episode or step that is not repeated.
_LEAST = (
    5e-6  # The seconds of an episode at least: a chunk of many takes as long as a single one, by the clock.
)
_COUNTED = ("steps", "evaluate_every", "evaluate_episodes")  # What of a recipe is counted and not measured.


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Tasks that cost as much an episode and a step: seeds, rates, switches and weights do not matter."""

    name: str
    """A digest of the family, the data and the shapes."""
    family: str
    """A digest of the method with its texts and whole numbers (a solver, iterations)."""
    data: str
    """A digest of the data, of how streams are joined, and of whether something is withheld of them."""
    size: int
    """The clips of an episode, each modality counted."""
    method: str = ""
    """The method, whose families differ in settings."""

    @classmethod
    def of(cls, task: Task) -> Kind:
        """The kind of a task."""
        spec, protocol = task.job.spec, task.job.spec.protocol
        family = digest({"method": [spec.method, _form(spec), _is_at_once(protocol)]})
        withheld = bool(protocol.missing or protocol.noisy or protocol.cross_modal)
        names = [task.job.place.dataset, spec.train_dataset or "", protocol.label_set]
        streams = [spec.streams, spec.modalities, spec.fusion, spec.dtype]
        data = digest({"data": names, "streams": streams, "withheld": withheld})
        shape = [protocol.n_way, protocol.k_shot, protocol.n_query, protocol.unlabelled]
        clips = (
            bounds(protocol.n_way)[1] * (bounds(protocol.k_shot)[1] + protocol.n_query) + protocol.unlabelled
        )
        return cls(
            name=digest({"family": family, "data": data, "shape": shape}),
            family=family,
            data=data,
            size=max(clips, 1) * max(len(spec.modalities or spec.streams or ()), 1),
            method=spec.method,
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one kind of task."""

    family: str = ""
    """The family of the kind."""
    data: str = ""
    """The data of the kind."""
    size: int = 1
    """The size of the kind."""
    method: str = ""
    """The method of the kind; empty in costs of earlier releases."""
    start: float = 0.1
    """The seconds before the first episode and after the last."""
    episode: float = 0.001
    """The seconds of an episode."""
    step: float = 0.0
    """The seconds of a training step."""
    steps: int = 0
    """The steps of the head's own recipe, which val classes do not prolong; 0 where nothing is trained."""
    evaluate_every: int = 1
    """The steps between two validations of the head's own recipe."""
    evaluate_episodes: int = 0
    """The episodes of a validation of the head's own recipe."""
    memory_mb: float = 0.0
    """The memory that a worker takes beside what all share."""

    @property
    def is_possible(self) -> bool:
        """Whether every value is one that can be measured, which those of a file that was edited may not be."""
        texts = ("family", "data", "method")
        least = {"size": 1, "evaluate_every": 1}
        values = {key: value for key, value in vars(self).items() if key not in texts}
        numbers = all(isinstance(value, (int, float)) for value in values.values())
        return numbers and all(least.get(key, 0) <= value < math.inf for key, value in values.items())

    def seconds(self, task: Task) -> float:
        """The seconds that a task of this kind is expected to take."""
        if task.trains:
            own = {name: getattr(self, name) for name in _COUNTED}
            given = task.trained_as.settings
            steps, every, episodes = (int(given.get(f"train.{name}", own[name])) for name in _COUNTED)
            validated = (steps // every + 1) * episodes if steps else 0
            return self.start + steps * self.step + validated * self.episode
        if _is_at_once(task.job.spec.protocol):
            return self.start
        passes = 1 + len(CHANGES) if task.job.order_certificate else 1
        episodes = planned(task.job.episodes)
        more = episodes_beside(task.job.spec, episodes)
        return self.start + (episodes * passes + more) * self.episode

    def scaled_to(self, kind: Kind) -> Cost:
        """The cost of a kind of another size, if clips cost the same there."""
        share = kind.size / self.size
        return replace(
            self,
            family=kind.family,
            data=kind.data,
            size=kind.size,
            method=kind.method,
            episode=self.episode * share,
            step=self.step * share,
            memory_mb=self.memory_mb * share,
        )


def measured(kind: Kind, task: Task, shared: SharedBanks) -> Cost:
    """The cost of a task's kind, measured on its first episodes and on a few steps of its training."""
    began, before = _clock(), own_peak_mb()
    spec = task.trained_as if task.head else task.job.spec
    banks = Banks(spec, task.job.place, shared)
    head = built_head(spec, banks)
    more: dict[str, Any] = {"unlabelled": banks.unlabelled, "transductive": spec.resolved.transductive}
    test = provisional(head, banks.test, spec, banks)
    score = partial(measure, test.head, test.bank, spec.protocol, **more)
    found = Cost(family=kind.family, data=kind.data, size=kind.size, method=kind.method)
    if _is_at_once(spec.protocol):
        found = replace(found, start=1.0, episode=0.0)
    else:
        first = _seconds(partial(score, episodes=1))
        start = _clock() - began
        found = replace(found, start=start, episode=_each(lambda count: score(episodes=count), first))
    found = replace(found, memory_mb=max(own_peak_mb() - before, 0.0))
    if not learns(head):
        return found
    learn = partial(_train_some, head, spec, banks)
    step = _each(learn, _seconds(partial(learn, 1)))
    counted = {name: getattr(head.recipe, name) for name in _COUNTED}
    return replace(found, step=step, memory_mb=max(own_peak_mb() - before, 0.0), **counted)


def _each(work: Callable[[int], object], first: float) -> float:
    """The seconds that one more episode or step takes.

    work: does so many. first: the seconds of a single one, which has paid for what is made once; where they are very
    many, they are the answer.
    """
    if first >= _LONGEST:
        return first
    one = each = _seconds(partial(work, 1))
    for more in _MORE:  # A single episode may cost as much as a hundred at once: differences alone tell.
        if more > _MORE[0] and more * each > _WORTH:
            break
        each = max((_seconds(partial(work, 1 + more)) - one) / more, _LEAST)
    return each


def _train_some(head: Head, spec: RunSpec, banks: Banks, steps: int) -> None:
    """Train a head for so many steps, with next to no validation."""
    recipe = replace(recipe_of(head, spec), steps=steps, ceiling=1, evaluate_episodes=1)
    train(head, banks.base, banks.val, spec.protocol, recipe=recipe, seed=spec.train_seed)


def _form(spec: RunSpec) -> dict[str, str]:
    """The settings that may change what an episode or step costs: texts and whole numbers, but for what is counted."""
    counted = {f"train.{name}" for name in (*_COUNTED, "ceiling")}
    return {
        key: value
        for key, value in spec.settings.items()
        if key not in counted and not key.startswith("fusion.")
        if value.lower() not in ("true", "false") and not _is_fraction(value)
    }


def _is_fraction(text: str) -> bool:
    """Whether a text is a number that is not a whole one.

    >>> [_is_fraction(text) for text in ("0.5", "1e-3", "20", "adm")]
    [True, True, False, False]
    """
    try:
        return not text.isdigit() and bool(float(text) or True)
    except ValueError:
        return False


def _is_at_once(protocol: Protocol) -> bool:
    """Whether a test classifies whole splits, however many episodes are asked for."""
    return whole_split(protocol) or is_generalised(protocol)


def _seconds(work: Callable[[], object]) -> float:
    """The seconds that some work takes of the processor, which other programs of the machine do not lengthen."""
    began = _clock()
    work()
    return _clock() - began


def _clock() -> float:
    """The processor time of this process; where a GPU computes, the time of day."""
    return time.perf_counter() if torch.cuda.is_initialized() else time.process_time()
