"""TS-DCM (yaozhang0417/TS-FSAR) on given tokens [videos, T, 1 + P, C], supports first."""

from __future__ import annotations

from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.tsdcm import TSDCM, TSDCMSettings


def outputs(case: Case) -> dict[str, Tensor]:
    label, meta = case.inputs["support_labels"], case.meta
    clips, count = case.inputs["tokens"].flatten(2), len(label)
    task = one_task(by_class(clips[:count], label), clips[count:], query_classes(case))
    own = TSDCMSettings(
        patches=meta["patches"],
        channels=0,
        alpha=meta["alpha"],
        epsilon=meta["cos_eps"],
        scale=1.0,
        start=False,
    )
    head = TSDCM(Inputs(streams={ONLY: tuple(clips.shape[1:])}), own).double().eval()
    head.load_state_dict(head.state_dict() | {"generator.weight": case.params["generator.weight"]})
    loss = head.loss(task).total
    loss.backward()
    every = one_task(clips[:, None], clips).query[ONLY]
    return {
        "logits": head(task)[0],
        "loss": loss,
        "representation": head.encode(every).vector[0],
        "grad.generator.weight": head.generator.weight.grad,
    }
