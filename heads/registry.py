"""The visible table of methods: one line each, nothing heavy imported to list them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError, unknown

if TYPE_CHECKING:
    from .head import Head

FUSIONS = ("ec", "ea", "lf")


@dataclass(frozen=True)
class Method:
    """target: "module:Class" below fsmm.heads. regime: how it learns (none | episodic | batch).

    modalities: "one" (several are joined by fusion: EC, EA or LF), "two", or "any" (takes several by itself).
    words: whether it uses class words ("no", "optional", "needed"). zero_shot: whether it can decide without supports.
    """

    target: str
    paper: str
    year: int
    regime: str
    transductive: bool = False
    modalities: str = "one"
    words: str = "no"
    zero_shot: bool = False

    def load(self) -> type[Head]:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)


METHODS: dict[str, Method] = {
    "matching": Method(
        "metric.matching:Matching", "Vinyals et al., Matching Networks, NeurIPS", 2016, "none"
    ),
    "matching-fce": Method(
        "metric.matching:FullContextMatching",
        "Vinyals et al., Matching Networks with full context embeddings, NeurIPS",
        2016,
        "episodic",
    ),
    "relation": Method("metric.relation:Relation", "Sung et al., Relation Network, CVPR", 2018, "episodic"),
    "cmn": Method("temporal.cmn:CMN", "Zhu and Yang, Compound Memory Networks, ECCV", 2018, "episodic"),
    "simpleshot": Method("metric.simpleshot:SimpleShot", "Wang et al., SimpleShot, arXiv", 2019, "none"),
    "finetune": Method(
        "adaptation.finetune:FineTune", "Chen et al., A Closer Look (Baseline++), ICLR", 2019, "none"
    ),
    "tarn": Method(
        "temporal.tarn:TARN", "Bishay et al., TARN, BMVC", 2019, "episodic", False, "one", "optional", True
    ),
    "feat": Method("metric.feat:FEAT", "Ye et al., FEAT, CVPR", 2020, "episodic"),
    "arn": Method("temporal.arn:ARN", "Zhang et al., ARN, ECCV", 2020, "episodic"),
    "laplacianshot": Method(
        "transductive.laplacianshot:LaplacianShot", "Ziko et al., LaplacianShot, ICML", 2020, "none", True
    ),
    "bdcspn": Method(
        "transductive.bdcspn:BDCSPN", "Liu et al., Prototype Rectification, ECCV", 2020, "none", True
    ),
    "tim": Method("transductive.tim:TIM", "Boudiaf et al., TIM, NeurIPS", 2020, "none", True),
    "ptmap": Method("transductive.ptmap:PTMAP", "Hu et al., PT-MAP, ICANN", 2021, "none", True),
    "pal": Method("metric.pal:PAL", "Zhu et al., PAL, BMVC", 2021, "episodic"),
    "amefunet": Method(
        "multimodal.amefunet:AMeFuNet", "Fu et al., AMeFu-Net, ACM MM", 2020, "episodic", False, "two"
    ),
    "amfar": Method("multimodal.amfar:AMFAR", "Wanyan et al., AMFAR, CVPR", 2023, "episodic", False, "two"),
    "mtfan": Method("temporal.mtfan:MTFAN", "Wu et al., MTFAN, CVPR", 2022, "episodic"),
    "molo": Method("temporal.molo:MoLo", "Wang et al., MoLo, CVPR", 2023, "episodic"),
    "sloshnet": Method("temporal.sloshnet:SloshNet", "Xing et al., SloshNet, AAAI", 2023, "episodic"),
    "clipfsar": Method(
        "language.clipfsar:CLIPFSAR",
        "Wang et al., CLIP-FSAR, IJCV",
        2023,
        "episodic",
        False,
        "one",
        "optional",
    ),
    "common-space": Method(
        "embedding.common_space:CommonSpace",
        "Frome et al., DeViSE, NeurIPS",
        2013,
        "batch",
        False,
        "any",
        "optional",
        True,
    ),
    "ridge-words": Method(
        "embedding.ridge_words:RidgeWords",
        "Palatucci et al., Zero-shot Learning with Semantic Output Codes, NeurIPS",
        2009,
        "none",
        False,
        "one",
        "needed",
        True,
    ),
    "semi-protonet": Method(
        "transductive.semi_protonet:SemiProtoNet",
        "Ren et al., Semi-Supervised Few-Shot Classification, ICLR",
        2018,
        "none",
    ),
    "protonet": Method(
        "metric.protonet:ProtoNet", "Snell et al., Prototypical Networks, NeurIPS", 2017, "none"
    ),
    "nearest": Method(
        "metric.nearest:NearestNeighbour", "Cover and Hart, Nearest Neighbor, IEEE TIT", 1967, "none"
    ),
    "linear-probe": Method(
        "adaptation.linear_probe:LinearProbe", "Cox, Logistic regression, JRSS B", 1958, "none"
    ),
    "ridge": Method("adaptation.ridge:Ridge", "Bertinetto et al., Closed-form Solvers, ICLR", 2019, "none"),
    "maml": Method("adaptation.maml:MAML", "Finn et al., MAML, ICML", 2017, "episodic"),
    "leo": Method("adaptation.leo:LEO", "Rusu et al., LEO, ICLR", 2019, "episodic"),
    "gnn": Method("graph.gnn:GNN", "Garcia and Bruna, Few-shot GNN, ICLR", 2018, "episodic"),
    "tpn": Method("graph.tpn:TPN", "Liu et al., TPN, ICLR", 2019, "episodic", True),
    "egnn": Method("graph.egnn:EGNN", "Kim et al., EGNN, CVPR", 2019, "episodic", True),
    "dpgn": Method("graph.dpgn:DPGN", "Yang et al., DPGN, CVPR", 2020, "episodic", True),
    "eckpn": Method(
        "graph.eckpn:ECKPN", "Chen et al., ECKPN, CVPR", 2021, "episodic", True, "one", "optional"
    ),
    "otam": Method("temporal.otam:OTAM", "Cao et al., Temporal Alignment, CVPR", 2020, "none"),
    "trx": Method(
        "temporal.trx:TRX", "Perrett et al., Temporal-Relational CrossTransformers, CVPR", 2021, "episodic"
    ),
    "strm": Method(
        "temporal.strm:STRM", "Thatipelli et al., Spatio-temporal Relation Modeling, CVPR", 2022, "episodic"
    ),
    "hyrsm": Method(
        "temporal.hyrsm:HyRSM", "Wang et al., Hybrid Relation Guided Set Matching, CVPR", 2022, "episodic"
    ),
    "hyrsmpp": Method(
        "temporal.hyrsm:HyRSMPlusPlus", "Wang et al., HyRSM++, Pattern Recognition", 2024, "episodic"
    ),
    "ta2n": Method(
        "temporal.ta2n:TA2N", "Li et al., Two-Stage Action Alignment Network, AAAI", 2022, "episodic"
    ),
}


def find(name: str) -> tuple[Method, str | None]:
    """The method called ``name`` and its fusion; ``protonet-lf`` means ProtoNet with late fusion.

    Raises UsageError for an unknown name.
    """
    if name in METHODS:
        return METHODS[name], None
    stem, _, fusion = name.rpartition("-")
    if fusion in FUSIONS and stem in METHODS:
        if METHODS[stem].modalities != "one":
            raise UsageError(f"Method {stem!r} takes several modalities by itself; leave out the fusion.")
        return METHODS[stem], fusion
    raise unknown("method", name, METHODS)


def base_name(name: str) -> str:
    """``protonet`` of ``protonet-lf``."""
    return name if name in METHODS else name.rpartition("-")[0]


def rows() -> list[dict[str, object]]:
    """What ``fsmm methods`` prints."""
    return [
        {
            "name": name,
            "paper": method.paper,
            "year": method.year,
            "regime": method.regime,
            "transductive": method.transductive,
            "modalities": method.modalities,
            "words": method.words,
            "zero_shot": method.zero_shot,
        }
        for name, method in METHODS.items()
    ]
