"""Multi-label evaluation: binary relevance over multi-label episodes, measured by mAP, micro F1 and macro F1."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.binary import BinarySampler
from ..episodes.protocol import Protocol
from ..episodes.sampler import EpisodeIndex
from ..heads.head import Head
from ..heads.scoring.cost import cost_of
from ..heads.scoring.episode_test import EpisodeTest
from ..heads.scoring.plan import direct
from .evaluate import blocks, chunk_size, chunks, largest_episode
from .extent import Auto, Extent, planned
from .only_numbers import only_numbers
from .result import Result
from .statistics import Uncertainty, draw_uncertainty, interval_summary


@dataclass(kw_only=True)
class MultiLabelEvaluation(Result):
    """The result of an evaluation on E multi-label episodes."""

    average_precision: np.ndarray
    """The average precision of each episode, float [E], as the mean over its labels."""
    micro_f1: np.ndarray
    """The micro F1 of each episode, float [E]."""
    macro_f1: np.ndarray
    """The macro F1 of each episode, float [E]."""
    per_label: dict[str, float]
    """The mean average precision of each label over all episodes that drew it."""
    seconds: float
    """The time of the evaluation in seconds."""
    chunk: int
    """The number of binary tasks that were scored at once."""
    excluded: list[str]
    """The names of the labels that too few clips have."""
    why_so_many: str | None = None
    """The sentence that says why so many episodes were drawn; None where their number was given."""

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; ``accuracy`` is the mean average precision."""
        values = self.average_precision.astype(np.float64)
        return {
            "accuracy": float(values.mean()),
            "measure": "mean average precision",
            "map": float(values.mean()),
            "micro_f1": float(self.micro_f1.mean()),
            "macro_f1": float(self.macro_f1.mean()),
            "ci95_clips": None,
            "ci95_classes": None,
            **interval_summary({"ci95": draw_uncertainty(values)}),
            "per_class": self.per_label,
            "episodes": len(values),
            "why_so_many": self.why_so_many,
            "eval_seconds": self.seconds,
            "episodes_per_second": len(values) / max(self.seconds, 1e-9),
            "chunk": self.chunk,
            "excluded_classes": self.excluded,
        }

    def per_episode(self) -> np.ndarray:
        """The mean average precision of each episode, float32 [E]."""
        return self.average_precision.astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The mean average precision (as ``accuracy``), micro F1 and macro F1 of each episode, [E] each."""
        return {"accuracy": self.per_episode(), "micro_f1": self.micro_f1, "macro_f1": self.macro_f1}


def evaluate_multi_label(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: Extent = 1000,
    *,
    progress: Callable[[int], None] | None = None,
) -> MultiLabelEvaluation:
    """Measure ``head`` on the binary tasks of multi-label episodes 0 .. episodes-1.

    A query's score for a label is the logit of "has it" minus that of "has it not"; a label with a score above zero is
    predicted. episodes: their number, or Auto for as many as the precision needs. progress: called with the number of
    episodes just scored.
    Raises TooFew where the bank cannot serve the protocol, UsageError for a protocol that has no multi-label form.
    """
    head.eval()
    started = time.perf_counter()
    sampler = BinarySampler(bank, protocol)
    test = EpisodeTest(bank=bank, protocol=protocol, episodes=planned(episodes) * sampler.ways)
    score_of = direct(head, test)
    cost = cost_of(lambda: score_of(largest_episode(sampler, protocol, 0)))
    chunk = max(chunk_size(cost, bank.device) // sampler.ways, 1) * sampler.ways
    sums, why, done = _Sums.empty(len(bank.class_names)), None, 0
    for count in episodes.steps() if isinstance(episodes, Auto) else (episodes,):
        sums.score(sampler, score_of, first=done, episodes=count - done, chunk=chunk, progress=progress)
        done = count
        if isinstance(episodes, Auto):
            over_draws = draw_uncertainty(np.concatenate(sums.precision))
            why = episodes.verdict(over_draws, Uncertainty(reason="labels are several"), count)
        if why:
            break
    hits, names = np.concatenate(sums.hits), bank.class_names
    return MultiLabelEvaluation(
        average_precision=np.concatenate(sums.precision),
        micro_f1=f1(hits.sum(1)),
        macro_f1=f1(hits).mean(1),
        per_label={
            names[i]: float(sums.label_sum[i] / sums.label_times[i]) for i in np.flatnonzero(sums.label_times)
        },
        seconds=time.perf_counter() - started,
        chunk=chunk,
        excluded=sampler.excluded,
        why_so_many=why,
    )


@dataclass
class _Sums:
    """What was measured on the episodes so far."""

    label_sum: np.ndarray
    """float64 [C], the sum of each label's average precisions."""
    label_times: np.ndarray
    """int64 [C], the number of episodes that drew each label."""
    precision: list[np.ndarray] = field(default_factory=list)
    """The average precision of episodes, as the mean over their labels, one array a call of ``score``."""
    hits: list[np.ndarray] = field(default_factory=list)
    """The counts [E, N, 3] of ``confusion``, one array a call of ``score``."""

    @classmethod
    def empty(cls, labels: int) -> _Sums:
        return cls(np.zeros(labels), np.zeros(labels, np.int64))

    def score(
        self,
        sampler: BinarySampler,
        score_of: Callable[[EpisodeIndex], Tensor],
        *,
        first: int,
        episodes: int,
        chunk: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Measure the episodes first .. first+episodes-1, ``chunk`` tasks at once."""
        ways = sampler.ways
        precision, hits = np.zeros((episodes, ways)), np.zeros((episodes, ways, 3))
        tasks = blocks(sampler, first * ways, episodes * ways, chunk)
        for index in itertools.chain.from_iterable(chunks(block.draw(sampler), chunk) for block in tasks):
            logits = only_numbers(score_of(index))
            score = (logits[..., 1] - logits[..., 0]).float().cpu().numpy()
            truth = index.query_label.numpy().astype(bool)
            ap = average_precision(score, truth)
            episode, slot = np.divmod(index.episode.numpy(), ways)
            precision[episode - first, slot] = ap
            hits[episode - first, slot] = confusion(score > 0, truth)
            label = index.classes[:, 0].numpy()
            self.label_sum += np.bincount(label, ap, minlength=len(self.label_sum))
            self.label_times += np.bincount(label, minlength=len(self.label_times))
            if progress:
                progress(len(np.unique(episode)))
        self.precision.append(precision.mean(1))
        self.hits.append(hits)


def average_precision(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The average precision [B] of scores [B, Q] against truth bool [B, Q]: the mean of the precision at each hit.

    Tied scores count as one threshold, as in scikit-learn. The value is NaN where there is no positive.
    """
    order = np.argsort(-score, axis=1, kind="stable")
    ranked, hit = np.take_along_axis(score, order, 1), np.take_along_axis(truth, order, 1)
    found = hit.cumsum(1)
    total = found[:, -1]
    # Every score of a run of ties gets the precision at the last position of the run.
    place = np.arange(1, score.shape[1] + 1)
    last = np.concatenate([ranked[:, 1:] != ranked[:, :-1], np.ones((len(score), 1), bool)], 1)
    end = np.where(last, place, score.shape[1] + 1)
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    precision = np.take_along_axis(found, end - 1, 1) / end
    with np.errstate(invalid="ignore"):
        return (precision * hit).sum(1) / total


def confusion(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The numbers of true positives, false positives and false negatives, [B, 3]."""
    return np.stack([(predicted & truth).sum(1), (predicted & ~truth).sum(1), (~predicted & truth).sum(1)], 1)


def f1(hits: np.ndarray) -> np.ndarray:
    """The F1 [...] of counts [..., 3] from ``confusion``; 0 where nothing is positive and nothing is predicted."""
    true, false, missed = np.moveaxis(hits, -1, 0)
    return 2 * true / np.maximum(2 * true + false + missed, 1)
