"""GDA from base to new classes: the base classifier by pooled covariances, and the new one from words."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor
from word_case import built, word_task

from fsmm.heads.language.gda import GDA, GDASettings, offsets
from fsmm.heads.language.gda_new import GDANew, GDANewSettings


def outputs(case: Case) -> dict[str, Tensor]:
    given, meta = case.inputs, case.meta
    text, new_text = given["clip_weights"].T, given["clip_weights_new"].T
    base = built(GDA, GDASettings(covariance="pooled", alpha=1.0), text)
    task, _ = word_task(base, given["features"], given["labels"], given["query"], text)
    precision, mean = base.gaussians(task)
    weight = precision.apply(mean)
    own = GDANewSettings(neighbours=meta["k"], copies=meta["rep"], clips=len(given["features"]))
    head = built(GDANew, own, new_text)
    head.base.copy_(given["features"])
    head.held.fill_(len(given["features"]))
    new_task = task._replace(text=new_text[None])
    new_weight, new_mean = head.gaussians(new_text[None])
    away = head.nearest(new_text[None]) - new_text[None, :, None]
    return {
        "base_mus": mean[0],
        "base_W": weight[0].T,
        "base_b": offsets(weight, mean, torch.tensor(float(len(text))).double())[0, 0],
        "base_logits_alpha1": base.decide(task)[0],
        "new_mu": new_mean[0],
        "new_cov_inv": head.times_precision(torch.eye(new_text.shape[1]).double()[None], away)[0],
        "new_W": new_weight[0].T,
        "new_b": offsets(new_weight, new_mean, torch.tensor(float(len(new_text))).double())[0, 0],
        "new_logits_alpha1": head.decide(new_task)[0],
    }
