"""conformal_lac: scores, quantiles and sets of least ambiguous classifiers over a softmax at three temperatures."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor

from fsmm.runs.few_examples.calibration import lac_quantile, lac_scores, lac_sets, probabilities


def outputs(case: Case) -> dict[str, Tensor]:
    weights = case.inputs["clip_weights"].numpy()
    label = case.inputs["calibration_labels"].numpy()
    known, asked = (case.inputs[name].numpy() @ weights for name in ("calibration", "query"))
    found: dict[str, Tensor] = {}
    for inverse in case.meta["temperatures"]:
        scores = lac_scores(probabilities(known, 1 / inverse), label)
        quantiles = [lac_quantile(scores, error) for error in case.meta["alphas"]]
        sets = [lac_sets(probabilities(asked, 1 / inverse), q) for q in quantiles]
        found[f"calibration_score_T{inverse:g}"] = torch.from_numpy(scores)
        found[f"quantile_T{inverse:g}"] = torch.tensor(quantiles, dtype=torch.float64)
        found[f"sets_T{inverse:g}"] = torch.stack([torch.from_numpy(s) for s in sets])
    return found
