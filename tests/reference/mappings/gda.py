"""GDA: the estimator, the classifier, the search of alpha on validation clips, and the logits."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor
from word_case import built, word_task

from fsmm.heads.language.gda import GDA, GDASettings, offsets


def outputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    text = given["clip_weights"].T
    head = built(GDA, GDASettings(), text)
    task, _ = word_task(head, given["features"], given["labels"], given["query"], text)
    precision, mean = head.gaussians(task)
    weight = precision.apply(mean)
    evidence = head.evidence(task)
    val = task._replace(query=given["val"][None], query_present=torch.ones(1, len(given["val"])).bool())
    accuracy = [
        100
        * (head.blended(val, head.evidence(val), (a,))[0].argmax(-1) == given["val_labels"]).double().mean()
        for a in case.meta["alphas"]
    ]
    values = torch.stack(accuracy)
    best = case.meta["alphas"][values.tolist().index(max(values.tolist()))] if values.max() > 0 else 0.1
    return {
        "mus": mean[0],
        "cov_inv": precision.apply(torch.eye(text.shape[1]).double()[None])[0],
        "W": weight[0].T,
        "b": offsets(weight, mean, torch.tensor(float(len(text))).double())[0, 0],
        "gda_logits": evidence[0],
        "clip_logits": task.text_logits[0],
        "best_alpha": torch.tensor(best),
        "val_accuracy": values,
        "logits": head.blended(task, evidence, (best,))[0],
        "logits_alpha1": head.blended(task, evidence, (1.0,))[0],
    }
