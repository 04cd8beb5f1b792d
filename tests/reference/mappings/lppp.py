"""LP++: step sizes, the first gradients, the path of the fit, and the pass that validation clips pick."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor
from torch.nn import functional as F
from word_case import built, word_task

from fsmm.heads.language.lppp import LPPP, LPPPSettings, Probe, Problem


def outputs(case: Case) -> dict[str, Tensor]:
    given, meta = case.inputs, case.meta
    text = given["clip_weights"].T
    own = LPPPSettings(steps=meta["epochs"], momentum=meta["momentum"], accumulate=True)
    head = built(LPPP, own, text)
    task, place = word_task(head, given["features"], given["labels"], given["query"], text)
    samples = task.samples()
    problem = Problem(samples.x, samples.x @ given["clip_weights"], samples)
    first = problem.start(own.start * task.scale)
    first = Probe(
        torch.cat([first.w[..., :-1], case.params["classifier.bias_init"][None, :, None]], -1), first.a
    )
    path = list(problem.descend(first, own))
    chosen = path if "selected_epochs" not in meta else [path[i] for i in meta["selected_epochs"]]
    label = given["labels"]
    losses = [F.cross_entropy(problem.logits(probe)[0][place], label) for probe in [first, *path[:-1]]]
    val = F.normalize(given["val"], dim=-1)
    right = [(read(probe, val, text).argmax(-1) == given["val_labels"]).sum().item() for probe in path]
    best = max(range(len(path)), key=lambda i: (right[i], i))
    test = read(path[best], given["query"], text)
    residual = samples.residual(problem.logits(first))
    return {
        "lr_w": problem.rate.flatten()[0],
        "lr_alpha": problem.blend_rate.flatten()[0],
        "alpha_init": first.a[0, 0, 0],
        "loss": torch.stack(losses),
        "weights": torch.stack([probe.w[0, :, :-1] for probe in chosen]),
        "bias": torch.stack([probe.w[0, :, -1] for probe in chosen]),
        "alpha": torch.stack([probe.a[0, 0] for probe in chosen]),
        "best_epoch": torch.tensor(best),
        "test_logits_best": test,
        "test_accuracy": 100 * (test.argmax(-1) == given["query_labels"]).double().mean(),
        "grad.alpha_vec_step0": (residual * problem.text).sum(1),
        "grad.classifier.weight_step0": (residual.transpose(1, 2) @ problem.f)[0, :, :-1],
    }


def read(probe: Probe, x: Tensor, text: Tensor) -> Tensor:
    """The logits of features x [Q, D] of length one."""
    return x @ probe.w[0, :, :-1].T + probe.w[0, :, -1] + probe.a[0] * (x @ text.T)
