"""Multi-label evaluation: binary relevance over multi-label episodes, measured by mAP, micro F1 and macro F1."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.binary import BinarySampler
from ..episodes.protocol import Protocol
from ..heads.head import Head
from ..heads.scoring.cost import cost_of
from ..heads.scoring.episode_test import EpisodeTest
from ..heads.scoring.plan import direct
from . import statistics
from .evaluate import blocks, chunk_size, chunks, largest_episode
from .result import Result


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

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; ``accuracy`` is the mean average precision."""
        values = self.average_precision.astype(np.float64)
        return {
            "accuracy": float(values.mean()),
            "measure": "mean average precision",
            "map": float(values.mean()),
            "micro_f1": float(self.micro_f1.mean()),
            "macro_f1": float(self.macro_f1.mean()),
            "ci95": statistics.draw_interval(values),
            "ci95_clips": None,
            "ci95_classes": None,
            "per_class": self.per_label,
            "episodes": len(values),
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
    episodes: int = 1000,
    *,
    progress: Callable[[int], None] | None = None,
) -> MultiLabelEvaluation:
    """Measure ``head`` on the binary tasks of multi-label episodes 0 .. episodes-1.

    A query's score for a label is the logit of "has it" minus that of "has it not"; a label with a score above zero is
    predicted. progress: called with the number of episodes just scored.
    Raises TooFew where the bank cannot serve the protocol, UsageError for a protocol that has no multi-label form.
    """
    head.eval()
    started = time.perf_counter()
    sampler = BinarySampler(bank, protocol)
    ways = sampler.ways
    test = EpisodeTest(bank=bank, protocol=protocol, episodes=episodes * ways)
    score_of = direct(head, test)
    cost = cost_of(lambda: score_of(largest_episode(sampler, protocol, 0)))
    chunk = max(chunk_size(cost, bank.device) // ways, 1) * ways
    precision = np.zeros((episodes, ways))
    hits = np.zeros((episodes, ways, 3))
    label_sum, label_times = np.zeros(len(bank.class_names)), np.zeros(len(bank.class_names))
    tasks = blocks(sampler, 0, episodes * ways, chunk)
    for index in itertools.chain.from_iterable(chunks(block.draw(sampler), chunk) for block in tasks):
        logits = score_of(index)
        score = (logits[..., 1] - logits[..., 0]).float().cpu().numpy()
        truth = index.query_label.numpy().astype(bool)
        ap = average_precision(score, truth)
        episode, slot = np.divmod(index.episode.numpy(), ways)
        precision[episode, slot] = ap
        hits[episode, slot] = confusion(score > 0, truth)
        label = index.classes[:, 0].numpy()
        label_sum += np.bincount(label, ap, minlength=len(label_sum))
        label_times += np.bincount(label, minlength=len(label_times))
        if progress:
            progress(len(np.unique(episode)))
    names = bank.class_names
    return MultiLabelEvaluation(
        average_precision=precision.mean(1),
        micro_f1=f1(hits.sum(1)),
        macro_f1=f1(hits).mean(1),
        per_label={names[i]: float(label_sum[i] / label_times[i]) for i in np.flatnonzero(label_times)},
        seconds=time.perf_counter() - started,
        chunk=chunk,
        excluded=sampler.excluded,
    )


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
