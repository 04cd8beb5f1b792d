"""Cross-modal adaptation: a batch of images and words, three steps of AdamW, and WiSE-FT."""

from __future__ import annotations

import math

import torch
from case import Case
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.language.cross_modal import Network, drawn_back
from fsmm.heads.language.word_head import Samples

LINEAR = {"head": "head.weight"}
ADAPTER = {"down": "head.0.fc.0.weight", "up": "head.0.fc.2.weight", "head": "head.1.weight"}
STEPS, RATE, DECAY = 3, 1e-3, 0.01


def outputs(case: Case) -> dict[str, Tensor]:
    given, meta = case.inputs, case.meta
    names = ADAPTER if meta["head"] == "adapter" else LINEAR
    weights = {ours: case.params[theirs][None] for ours, theirs in names.items()}
    x = F.normalize(torch.cat([given["image"], given["text"]]), dim=-1)[None]
    label = torch.cat([given["image_labels"], given["text_labels"]])
    hot = F.one_hot(label, meta["way"]).double()
    samples = Samples(x, hot, torch.full((1, len(label)), 1 / len(label)).double())
    network = Network(math.exp(meta["logit"]), 0.2)
    logits = network.logits(x, weights)
    slopes = network.gradients(samples, weights)
    after = list(network.descend(samples, weights, rates=[RATE] * STEPS, decay=DECAY))[-1]
    query = F.normalize(given["query"], dim=-1)[None]
    words = F.normalize(given["zeroshot"], dim=-1)[None]
    found = {
        "logits": logits[0],
        "loss": F.cross_entropy(logits[0], label),
        "query_logits_after3": network.logits(query, after)[0],
        "query_logits_wiseft": network.logits(query, drawn_back(after, words, 0.5))[0],
    }
    for ours, theirs in names.items():
        found[f"after3.{theirs}"] = after[ours][0]
        found[f"grad.{theirs}"] = slopes[ours][0]
    return found
