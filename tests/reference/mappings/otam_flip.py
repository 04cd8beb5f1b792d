"""shiyuanh/OTAM_Fewshot_Video: supports along the query, forwards and backwards; one support a class.

Its baseline is the cosine of mean frames, our ProtoNet's cosine form.
"""

from __future__ import annotations

from case import ONLY, Case, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.metric.protonet import ProtoNet, ProtoNetSettings
from fsmm.heads.parts.losses import cross_entropy
from fsmm.heads.temporal.otam import OTAM, OTAMSettings


def outputs(case: Case) -> dict[str, Tensor]:
    support, query, label = (case.inputs[name] for name in ("support", "query", "query_labels"))
    episodes = one_task(support[:, None], query, label.long())
    inputs = Inputs(streams={ONLY: tuple(query.shape[1:])})
    gamma = case.meta["smooth"] if case.meta["relax"] else 0.0
    head = OTAM(inputs, OTAMSettings(gamma=gamma, direction="reversed")).double()
    plain = ProtoNet(inputs, ProtoNetSettings(distance="cosine", scale=1.0)).double()
    cosine = plain(episodes)
    return {
        "distance": -head(episodes)[0],
        "loss": head.loss(episodes).total,
        "baseline_dist": 1 - cosine[0],
        "baseline_cos_loss": cross_entropy(cosine, episodes.query_label),
    }
