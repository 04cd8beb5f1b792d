"""The matchings of jbertrand89/temporal_matching: the stems differ in the matching alone; this file serves them all.

The released supports are grouped by position, ours by class; the cases are class by class.
"""

from __future__ import annotations

from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.chamfer import Chamfer, ChamferSettings

NAMES = {
    "temperature": "temperature_weight",
    "projection.0.weight": "fc.weight",
    "projection.0.bias": "fc.bias",
    "projection.1.weight": "layer_norm.weight",
    "projection.1.bias": "layer_norm.bias",
    "weights.weight": "matching_function.linear.weight",
    "visil.first.weight": "visil_fcn.conv1.weight",
    "visil.second.weight": "visil_fcn.conv2.weight",
    "visil.third.weight": "visil_fcn.conv3.weight",
    "visil.last.weight": "visil_fcn.conv4.weight",
}
MATCHINGS = {"diag": "diagonal"}


def build(case: Case) -> Chamfer:
    meta, matching = case.meta, case.meta["matching"]
    own = ChamferSettings(
        matching="visil" if meta["visil"] else MATCHINGS.get(matching, matching),
        size=meta["tuple"],
        supports="joint" if meta["joint"] else "separate",
        project=len(case.params["fc.bias"]),
        epsilon=meta["cos_eps"],
        summed=True,
        gamma=meta["otam_lbda"] or 0.0,
        scale=float(case.params["global_temperature"]),
    )
    head = Chamfer(Inputs(streams={ONLY: tuple(case.inputs["query"].shape[1:])}), own).double().eval()
    head.load_state_dict({name: case.params[NAMES[name]] for name in head.state_dict()})
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    label = case.inputs["support_labels"]
    task = one_task(by_class(case.inputs["support"], label), case.inputs["query"], query_classes(case))
    head = build(case)
    loss = head.loss(task).total
    loss.backward()
    place = label.argsort(stable=True).argsort()  # supports back in the file's order
    similarity = head.similarity(head.encode(task.support[ONLY]), head.encode(task.query[ONLY]))
    given = {"logits": head(task)[0], "similarity": similarity[0].flatten(1, 2)[:, place], "loss": loss}
    gradients = {NAMES[name]: weight.grad for name, weight in head.named_parameters()}
    return given | {
        f"grad.{name}": gradients[name] for name in case.wanted("grad.") if gradients.get(name) is not None
    }
