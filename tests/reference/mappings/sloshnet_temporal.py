"""SloshNet's short- and long-term paths and their sum on maps [V, T, D, H, W], as released."""

from __future__ import annotations

import torch
from case import ONLY, Case
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.sloshnet import SloshNet, SloshNetSettings

SHORT = {"qkv.weight": "qkv.weight", "query": "qconv.weight", "key": "kconv.weight", "first.weight": "mlp.fc1.weight",
         "second.weight": "mlp.fc2.weight"}  # fmt: skip
LONG = {
    "before": "ln_1",
    "between": "ln_2",
    "out": "attn.out_proj",
    "widen": "mlp.c_fc",
    "narrow": "mlp.c_proj",
}


def state(case: Case) -> dict[str, Tensor]:
    p = case.params
    ours = {f"short.{mine}": p[f"cmm.{theirs}"] for mine, theirs in SHORT.items()}
    for part in ("weight", "bias"):
        ours |= {
            f"long.{mine}.{part}": p[f"cstm.resblocks.0.{theirs}.{part}"] for mine, theirs in LONG.items()
        }
        ours[f"long.qkv.{part}"] = p[f"cstm.resblocks.0.attn.in_proj_{part}"]
    # the case gives the balance behind its softmax
    return ours | {"balance": case.inputs["gamma"].log()}


def outputs(case: Case) -> dict[str, Tensor]:
    maps, meta = case.inputs["x"], case.meta
    _, steps, dim, side, _ = maps.shape
    own = SloshNetSettings(side=side, groups=meta["reduce_time"], heads=meta["heads"], hidden=0, released=True,
                           rescale=False, start=False, width=4)  # fmt: skip
    head = SloshNet(Inputs(streams={ONLY: (steps, dim * side * side)}), own).double()
    loaded = head.load_state_dict(state(case), strict=False)
    assert all(name.startswith("tuples.") for name in loaded.missing_keys), loaded
    assert not loaded.unexpected_keys
    head.eval()
    valid = torch.ones(1, len(maps), steps, dtype=torch.bool)
    short, long = head.short(maps[None], valid), head.long(maps[None], valid)
    fused = head.fused(short, long, head.balance.softmax(0))
    return {"cmm": short[0], "cstm": long[0], "fused_pooled": fused[0]}
