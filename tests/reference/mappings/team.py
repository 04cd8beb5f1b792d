"""TEAM and its ablations (leesb7426/TEAM): the stems differ in the settings alone; this file serves them all.

TEAM_pos has no negative distance and files the positive one under its name.
"""

from __future__ import annotations

from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.context import TaskContext
from fsmm.heads.temporal.team import TEAM, TEAMSettings, class_steps

FORMS = {
    "TEAM": {},
    "TEAM_pos": {"discriminate": "no", "decide": "positive"},
    "TEAM_pos_neg": {"discriminate": "no"},
    "TEAM_neg_with_pos_loss": {"discriminate": "no", "decide": "negative"},
    "TEAM_disc_without_sim": {"discriminate": "always"},
}
NAMES = {
    "pattern": "DPM.AP",
    "norm.weight": "DPM.ln.weight",
    "norm.bias": "DPM.ln.bias",
    "first.weight": "DPM.mlp.inp_fc.weight",
    "first.bias": "DPM.mlp.inp_fc.bias",
    "second.weight": "DPM.mlp.out_fc.weight",
    "second.bias": "DPM.mlp.out_fc.bias",
}


def outputs(case: Case) -> dict[str, Tensor]:
    label, meta = case.inputs["support_labels"], case.meta
    task = one_task(by_class(case.inputs["support"], label), case.inputs["query"], query_classes(case))
    own = TEAMSettings(tokens=meta["agg"], position=meta["pe_scale"], rescale=False, **FORMS[meta["module"]])
    head = TEAM(Inputs(streams={ONLY: tuple(case.inputs["query"].shape[1:])}), own).double().eval()
    state = head.state_dict()
    head.load_state_dict({name: case.params[NAMES[name]].view_as(old) for name, old in state.items()})
    losses = head.loss(task)
    losses.total.backward()
    support, query = task.support[ONLY], task.query[ONLY]
    context = TaskContext(support.present, query.present)
    positive, negative = head.distances(head.encode(support), head.encode_query(query), context)
    filed = positive if meta["module"] == "TEAM_pos" else negative
    tokens = head.tokens(head.read(class_steps(head.encode(support))))
    given = {
        "logits": head(task)[0],
        "logits_pos": -positive[0],
        "logits_neg": -filed[0],
        "loss": losses.total,
        "support_positive_tokens": tokens.positive[0],
    }
    given |= {f"loss_{name[:3]}": value for name, value in losses.parts.items()}
    gradients = {f"grad.{NAMES[name]}": weight.grad for name, weight in head.named_parameters()}
    return given | {
        name: grad.view_as(case.expected[name])
        for name, grad in gradients.items()
        if name in case.expected and grad is not None
    }
