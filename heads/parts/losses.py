"""Objectives that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes


def targets(episodes: Episodes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One-hot (or multi-hot) labels [B, Q, N] and which queries have one, bool [B, Q]."""
    label = episodes.query_label
    if episodes.multi:
        return label.to(dtype), torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
    labelled = label >= 0
    hot = F.one_hot(label.clamp(min=0), episodes.ways).to(dtype)
    return hot * labelled[..., None].to(dtype), labelled


def relation_mse(logits: Tensor, episodes: Episodes) -> Tensor:
    """The mean squared error between sigmoid(logits) [B, Q, N] and the one-hot labels, over the queries that exist."""
    hot, labelled = targets(episodes, logits.dtype)
    error = (logits.sigmoid() - hot).square().mean(-1)
    return (error * labelled).sum() / labelled.sum().clamp(min=1)


def cross_entropy(logits: Tensor, label: Tensor, reduction: str = "mean") -> Tensor:
    """The cross-entropy of logits [B, Q, N] and labels [B, Q], where -1 stands for no such query.

    Multi-hot labels [B, Q, N] give binary cross-entropy.
    """
    if label.ndim == 3:
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction=reduction)
    return F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1, reduction=reduction)
