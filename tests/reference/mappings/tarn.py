"""tarn: relation scores of (query, support) pairs, each a task of one class and one query."""

from __future__ import annotations

from dataclasses import replace

import torch
from case import ONLY, Case
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs
from fsmm.heads.temporal.tarn import TARN, TARNSettings

NAMES = {"bias": "align_bias", "W": "align", "dml_gru": "compare", "dml_fc": "out"}


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    support = _stream(case, "support", 3)
    query = _stream(case, "query", 2)
    pairs = len(query.length)
    label = torch.zeros(pairs, 1, dtype=torch.int64)
    episodes = Episodes({ONLY: support}, {ONLY: query}, label, label)
    settings = TARNSettings(
        hidden=meta["gru_hidden"],
        relation=meta["dml_hidden"],
        compare=str(meta["sim"]).lower(),
        align="query",
        padded=True,
        start=False,
    )
    head = TARN(Inputs(streams={ONLY: (query.x.shape[-2], query.x.shape[-1])}), settings).double()
    ours = dict(head.named_parameters())
    names = {official: ours[_ours(official)] for official in case.params}
    with torch.no_grad():
        for official, parameter in names.items():
            parameter.copy_(case.params[official])
    logits = head(episodes)[:, 0]
    positive = head.loss(episodes).parts["positive"]
    # Every pair a wrong one: no class is right.
    wrong = replace(episodes, query_label=torch.zeros(pairs, 1, 1, dtype=torch.uint8))
    negative = head.loss(wrong).parts["negative"]
    grads = {
        f"grad.{n}": torch.autograd.grad(positive, names[n], retain_graph=True)[0]
        for n in case.wanted("grad.")
    }
    return {"relation": logits.sigmoid(), "bce_pos": positive, "bce_neg": negative, **grads}


def _stream(case: Case, name: str, axes: int) -> Stream:
    x, length = case.inputs[name], case.inputs[f"{name}_len"]
    lead = [len(x), *[1] * (axes - 1)]
    return Stream(x.view(*lead, *x.shape[1:]), torch.ones(lead, dtype=torch.bool), length.view(lead))


def _ours(official: str) -> str:
    first, _, rest = official.partition(".")
    if first != "feats_gru":
        return f"{NAMES[first]}.{rest}".rstrip(".")
    if rest.endswith("_reverse"):
        return f"embed.back.{rest.removesuffix('_reverse')}"
    return f"embed.ahead.{rest}"
