"""The visible table of methods: one row each, sorted by family and year; nothing heavy is imported to list them.

Other packages add rows of their own by entry points of the group ``fsmm.heads`` (examples/third_party shows one).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ..errors import FsmmError, UsageError, unknown
from ..machine.plugins import rows_of
from .settings import Settings, make_settings

if TYPE_CHECKING:
    from .head import Head

FUSIONS = ("ec", "ea", "lf")
SHARED_PAGES = {"matching-fce": "matching"}
"""The methods that the page of another one describes, too."""
FAMILIES = (
    "metric",
    "adaptation",
    "transductive",
    "graph",
    "temporal",
    "multimodal",
    "embedding",
    "language",
)
GROUP = "fsmm.heads"


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a method was published."""

    authors: str
    title: str
    venue: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors}, {self.title}, {self.venue} {self.year}"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is known of a method without importing it."""

    target: str
    """"family.module:Class" below fsmm.heads, or "package.module:Class" of another package."""
    paper: Paper
    """Where it was published."""
    regime: Literal["none", "episodic", "batch"]
    """How it learns: not at all, on training episodes, or on batches of base clips."""
    transductive: bool = False
    """Whether the queries of a task are decided together."""
    modalities: Literal["one", "two", "any"] = "one"
    """How many modalities it takes; methods of one take several by fusion (EC, EA or LF)."""
    words: Literal["no", "optional", "needed"] = "no"
    """Whether it uses class words."""
    zero_shot: bool = False
    """Whether it can decide without supports."""
    reads_supports: bool = True
    """Whether supports take part in its decisions; methods that decide by class words alone leave them unread."""
    reads_unlabelled: bool = False
    """Whether clips without labels that an episode gives (``Protocol.unlabelled``) take part in its decisions."""
    reads_time: bool = False
    """Whether it reads the steps of a clip; others are handed features averaged over time (T = 1), which is faster."""
    reads_time_if: str = ""
    """The setting, as key=value, with which a method that does not read steps by default reads them."""
    fits_base: bool = False
    """Whether it takes closed-form statistics of the base classes (``fit_base``)."""
    fits_val: bool = False
    """Whether val classes, where there are any, take part in what it chooses (``fit_val``)."""
    position_tied: bool = False
    """Whether weights belong to class positions, so that permuting the classes of an episode permutes the logits'
    columns in distribution only; such a head serves at most ``inputs.way`` classes."""
    relations: bool = False
    """Whether its setting ``graph`` may name a relation graph of the data set."""
    branches: tuple[str, ...] = ()
    """The other methods that it is built of; it gets their makers by ``inputs.branches``."""
    reference: tuple[str, ...] = ()
    """The cases of official numbers that it reproduces (tests/reference); () where there are none."""

    @property
    def family(self) -> str:
        """The family of methods it belongs to, or the package that it comes from."""
        return self.target.partition(".")[0]

    def learns(self, settings: Mapping[str, str]) -> bool:
        """Whether a head with these settings has weights to train; those of recipes and fusion do not matter.

        Raises UsageError for a setting that the head does not have.
        """
        if self.regime != "none":
            return True
        own = {key: value for key, value in settings.items() if "." not in key}
        made: Settings = make_settings(self.load().Settings, own, self.target)
        return made.adds_weights

    def load(self) -> type[Head[Any]]:
        """The class. Raises FsmmError where another package's class cannot be imported."""
        module, _, name = self.target.partition(":")
        inside = self.family in FAMILIES
        try:
            found = importlib.import_module(
                f".{module}" if inside else module, __package__ if inside else None
            )
            cls: type[Head[Any]] = getattr(found, name)
        except (ImportError, AttributeError) as error:
            if inside:
                raise
            raise FsmmError(f"The method at {self.target!r} cannot be loaded: {error}.") from error
        return cls


def arxiv(number: str) -> str:
    """The address of a preprint."""
    return f"https://arxiv.org/abs/{number}"


METHODS: dict[str, Method] = {
    # metric
    "nearest": Method(
        target="metric.nearest:NearestNeighbour",
        paper=Paper(
            authors="Cover and Hart",
            title="Nearest Neighbor Pattern Classification",
            venue="IEEE TIT",
            year=1967,
            url="https://doi.org/10.1109/TIT.1967.1053964",
        ),
        regime="none",
    ),
    "matching": Method(
        target="metric.matching:Matching",
        paper=Paper(
            authors="Vinyals et al.",
            title="Matching Networks for One Shot Learning",
            venue="NeurIPS",
            year=2016,
            url=arxiv("1606.04080"),
        ),
        regime="none",
        reference=("matchingnet",),
    ),
    "matching-fce": Method(
        target="metric.matching:FullContextMatching",
        paper=Paper(
            authors="Vinyals et al.",
            title="Matching Networks with full context embeddings",
            venue="NeurIPS",
            year=2016,
            url=arxiv("1606.04080"),
        ),
        regime="episodic",
        reference=("matchingnet",),
    ),
    "protonet": Method(
        target="metric.protonet:ProtoNet",
        paper=Paper(
            authors="Snell et al.",
            title="Prototypical Networks for Few-shot Learning",
            venue="NeurIPS",
            year=2017,
            url=arxiv("1703.05175"),
        ),
        regime="none",
        reference=("protonet", "tsn_cos", "tsn_euclid"),
    ),
    "relation": Method(
        target="metric.relation:Relation",
        paper=Paper(
            authors="Sung et al.",
            title="Learning to Compare: Relation Network for Few-Shot Learning",
            venue="CVPR",
            year=2018,
            url=arxiv("1711.06025"),
        ),
        regime="episodic",
        reference=("relationnet",),
    ),
    "simpleshot": Method(
        target="metric.simpleshot:SimpleShot",
        paper=Paper(
            authors="Wang et al.",
            title="SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning",
            venue="arXiv",
            year=2019,
            url=arxiv("1911.04623"),
        ),
        regime="none",
        fits_base=True,
        reference=("simpleshot",),
    ),
    "feat": Method(
        target="metric.feat:FEAT",
        paper=Paper(
            authors="Ye et al.",
            title="Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions",
            venue="CVPR",
            year=2020,
            url=arxiv("1812.03664"),
        ),
        regime="episodic",
        reference=("feat",),
    ),
    "pal": Method(
        target="metric.pal:PAL",
        paper=Paper(
            authors="Zhu et al.",
            title="Few-shot Action Recognition with Prototype-centered Attentive Learning",
            venue="BMVC",
            year=2021,
            url=arxiv("2101.08085"),
        ),
        regime="episodic",
        reference=("pal",),
    ),
    # adaptation
    "linear-probe": Method(
        target="adaptation.linear_probe:LinearProbe",
        paper=Paper(
            authors="Cox",
            title="The Regression Analysis of Binary Sequences",
            venue="JRSS B",
            year=1958,
            url="https://doi.org/10.1111/j.2517-6161.1958.tb00292.x",
        ),
        regime="none",
    ),
    "maml": Method(
        target="adaptation.maml:MAML",
        paper=Paper(
            authors="Finn et al.",
            title="Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
            venue="ICML",
            year=2017,
            url=arxiv("1703.03400"),
        ),
        regime="episodic",
        fits_base=True,
        position_tied=True,
        reference=("maml",),
    ),
    "finetune": Method(
        target="adaptation.finetune:FineTune",
        paper=Paper(
            authors="Chen et al.",
            title="A Closer Look at Few-shot Classification (Baseline++)",
            venue="ICLR",
            year=2019,
            url=arxiv("1904.04232"),
        ),
        regime="none",
        fits_base=True,
    ),
    "leo": Method(
        target="adaptation.leo:LEO",
        paper=Paper(
            authors="Rusu et al.",
            title="Meta-Learning with Latent Embedding Optimization",
            venue="ICLR",
            year=2019,
            url=arxiv("1807.05960"),
        ),
        regime="episodic",
        fits_base=True,
        reference=("leo",),
    ),
    "ridge": Method(
        target="adaptation.ridge:Ridge",
        paper=Paper(
            authors="Bertinetto et al.",
            title="Meta-learning with Differentiable Closed-form Solvers",
            venue="ICLR",
            year=2019,
            url=arxiv("1805.08136"),
        ),
        regime="none",
    ),
    # transductive
    "semi-protonet": Method(
        target="transductive.semi_protonet:SemiProtoNet",
        paper=Paper(
            authors="Ren et al.",
            title="Meta-Learning for Semi-Supervised Few-Shot Classification",
            venue="ICLR",
            year=2018,
            url=arxiv("1803.00676"),
        ),
        regime="none",
        reads_unlabelled=True,
    ),
    "bdcspn": Method(
        target="transductive.bdcspn:BDCSPN",
        paper=Paper(
            authors="Liu et al.",
            title="Prototype Rectification for Few-Shot Learning",
            venue="ECCV",
            year=2020,
            url=arxiv("1911.10713"),
        ),
        regime="none",
        transductive=True,
        fits_base=True,
        reference=("bdcspn",),
    ),
    "laplacianshot": Method(
        target="transductive.laplacianshot:LaplacianShot",
        paper=Paper(
            authors="Ziko et al.",
            title="Laplacian Regularized Few-Shot Learning",
            venue="ICML",
            year=2020,
            url=arxiv("2006.15486"),
        ),
        regime="none",
        transductive=True,
        fits_base=True,
        reference=("laplacianshot",),
    ),
    "tim": Method(
        target="transductive.tim:TIM",
        paper=Paper(
            authors="Boudiaf et al.",
            title="Transductive Information Maximization for Few-Shot Learning",
            venue="NeurIPS",
            year=2020,
            url=arxiv("2008.11297"),
        ),
        regime="none",
        transductive=True,
        fits_base=True,
        reference=("timgd",),
    ),
    "ptmap": Method(
        target="transductive.ptmap:PTMAP",
        paper=Paper(
            authors="Hu et al.",
            title="Leveraging the Feature Distribution in Transfer-based Few-Shot Learning",
            venue="ICANN",
            year=2021,
            url=arxiv("2006.03806"),
        ),
        regime="none",
        transductive=True,
        reference=("ptmap",),
    ),
    "alpha-tim": Method(
        target="transductive.alpha_tim:AlphaTIM",
        paper=Paper(
            authors="Veilleux et al.",
            title="Realistic Evaluation of Transductive Few-Shot Learning",
            venue="NeurIPS",
            year=2021,
            url=arxiv("2204.11181"),
        ),
        regime="none",
        transductive=True,
        fits_base=True,
        reference=("alphatim", "alphatim_alphace", "dirichlet_counts"),
    ),
    "em-dirichlet": Method(
        target="transductive.em_dirichlet:EMDirichlet",
        paper=Paper(
            authors="Martin et al.",
            title="Transductive Zero-Shot and Few-Shot CLIP",
            venue="CVPR",
            year=2024,
            url=arxiv("2405.18437"),
        ),
        regime="none",
        transductive=True,
        words="needed",
        zero_shot=True,
        fits_base=True,
        reference=(
            "em_dirichlet_fewshot",
            "em_dirichlet_zeroshot",
            "hard_em_dirichlet_fewshot",
            "hard_em_dirichlet_zeroshot",
        ),
    ),
    # graph
    "gnn": Method(
        target="graph.gnn:GNN",
        paper=Paper(
            authors="Garcia and Bruna",
            title="Few-Shot Learning with Graph Neural Networks",
            venue="ICLR",
            year=2018,
            url=arxiv("1711.04043"),
        ),
        regime="episodic",
        fits_base=True,
        position_tied=True,
        reference=("gnn",),
    ),
    "egnn": Method(
        target="graph.egnn:EGNN",
        paper=Paper(
            authors="Kim et al.",
            title="Edge-Labeling Graph Neural Network for Few-shot Learning",
            venue="CVPR",
            year=2019,
            url=arxiv("1905.01436"),
        ),
        regime="episodic",
        transductive=True,
        fits_base=True,
        reference=("egnn",),
    ),
    "tpn": Method(
        target="graph.tpn:TPN",
        paper=Paper(
            authors="Liu et al.",
            title="Learning to Propagate Labels: Transductive Propagation Network for Few-shot Learning",
            venue="ICLR",
            year=2019,
            url=arxiv("1805.10002"),
        ),
        regime="episodic",
        transductive=True,
        fits_base=True,
        reference=("tpn",),
    ),
    "dpgn": Method(
        target="graph.dpgn:DPGN",
        paper=Paper(
            authors="Yang et al.",
            title="DPGN: Distribution Propagation Graph Network for Few-shot Learning",
            venue="CVPR",
            year=2020,
            url=arxiv("2003.14247"),
        ),
        regime="episodic",
        transductive=True,
        fits_base=True,
        position_tied=True,
        reference=("dpgn",),
    ),
    "eckpn": Method(
        target="graph.eckpn:ECKPN",
        paper=Paper(
            authors="Chen et al.",
            title="ECKPN: Explicit Class Knowledge Propagation Network for Transductive Few-shot Learning",
            venue="CVPR",
            year=2021,
            url=arxiv("2106.08523"),
        ),
        regime="episodic",
        transductive=True,
        words="optional",
        fits_base=True,
    ),
    # temporal
    "cmn": Method(
        target="temporal.cmn:CMN",
        paper=Paper(
            authors="Zhu and Yang",
            title="Compound Memory Networks for Few-shot Video Classification",
            venue="ECCV",
            year=2018,
            url="https://openaccess.thecvf.com/content_ECCV_2018/html/Linchao_Zhu_Compound_Memory_Networks_ECCV_2018_paper.html",
        ),
        regime="episodic",
        reads_time=True,
    ),
    "tarn": Method(
        target="temporal.tarn:TARN",
        paper=Paper(
            authors="Bishay et al.",
            title="TARN: Temporal Attentive Relation Network for Few-Shot and Zero-Shot Action Recognition",
            venue="BMVC",
            year=2019,
            url=arxiv("1907.09021"),
        ),
        regime="episodic",
        words="optional",
        zero_shot=True,
        reads_time=True,
        fits_base=True,
        reference=("tarn",),
    ),
    "arn": Method(
        target="temporal.arn:ARN",
        paper=Paper(
            authors="Zhang et al.",
            title="Few-shot Action Recognition with Permutation-invariant Attention",
            venue="ECCV",
            year=2020,
            url=arxiv("2001.03905"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("arn",),
    ),
    "otam": Method(
        target="temporal.otam:OTAM",
        paper=Paper(
            authors="Cao et al.",
            title="Few-Shot Video Classification via Temporal Alignment",
            venue="CVPR",
            year=2020,
            url=arxiv("1906.11415"),
        ),
        regime="none",
        reads_time=True,
        reference=("otam", "otam_flip"),
    ),
    "trx": Method(
        target="temporal.trx:TRX",
        paper=Paper(
            authors="Perrett et al.",
            title="Temporal-Relational CrossTransformers for Few-Shot Action Recognition",
            venue="CVPR",
            year=2021,
            url=arxiv("2101.06184"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("trx",),
    ),
    "hyrsm": Method(
        target="temporal.hyrsm:HyRSM",
        paper=Paper(
            authors="Wang et al.",
            title="Hybrid Relation Guided Set Matching for Few-shot Action Recognition",
            venue="CVPR",
            year=2022,
            url=arxiv("2204.13423"),
        ),
        regime="episodic",
        reads_time=True,
        fits_base=True,
        reference=("hyrsm_1shot", "hyrsm_5shot"),
    ),
    "mtfan": Method(
        target="temporal.mtfan:MTFAN",
        paper=Paper(
            authors="Wu et al.",
            title="Motion-Modulated Temporal Fragment Alignment Network for Few-Shot Action Recognition",
            venue="CVPR",
            year=2022,
            url="https://openaccess.thecvf.com/content/CVPR2022/html/Wu_Motion-Modulated_Temporal_Fragment_Alignment_Network_for_Few-Shot_Action_Recognition_CVPR_2022_paper.html",
        ),
        regime="episodic",
        reads_time=True,
    ),
    "strm": Method(
        target="temporal.strm:STRM",
        paper=Paper(
            authors="Thatipelli et al.",
            title="Spatio-temporal Relation Modeling for Few-shot Action Recognition",
            venue="CVPR",
            year=2022,
            url=arxiv("2112.05132"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("strm",),
    ),
    "ta2n": Method(
        target="temporal.ta2n:TA2N",
        paper=Paper(
            authors="Li et al.",
            title="TA2N: Two-Stage Action Alignment Network for Few-Shot Action Recognition",
            venue="AAAI",
            year=2022,
            url=arxiv("2107.04782"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("ta2n",),
    ),
    "molo": Method(
        target="temporal.molo:MoLo",
        paper=Paper(
            authors="Wang et al.",
            title="MoLo: Motion-augmented Long-short Contrastive Learning for Few-shot Action Recognition",
            venue="CVPR",
            year=2023,
            url=arxiv("2304.00946"),
        ),
        regime="episodic",
        reads_time=True,
        fits_base=True,
        reference=("molo",),
    ),
    "chamfer": Method(
        target="temporal.chamfer:Chamfer",
        paper=Paper(
            authors="Bertrand et al.",
            title="Rethinking Matching-based Few-shot Action Recognition",
            venue="SCIA",
            year=2023,
            url=arxiv("2303.16084"),
        ),
        regime="none",
        reads_time=True,
        reference=(
            "tm_chamfer",
            "tm_chamferpp",
            "tm_diag",
            "tm_linear",
            "tm_max",
            "tm_mean",
            "tm_otam",
            "tm_visil",
        ),
    ),
    "auto-temporal": Method(
        target="temporal.auto_temporal:AutoTemporal",
        paper=Paper(
            authors="Bertrand et al.",
            title="Rethinking Matching-based Few-shot Action Recognition",
            venue="SCIA",
            year=2023,
            url=arxiv("2303.16084"),
        ),
        regime="none",
        reads_time=True,
        fits_base=True,
        fits_val=True,
    ),
    "sloshnet": Method(
        target="temporal.sloshnet:SloshNet",
        paper=Paper(
            authors="Xing et al.",
            title="Revisiting the Spatial and Temporal Modeling for Few-shot Action Recognition",
            venue="AAAI",
            year=2023,
            url=arxiv("2301.07944"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("sloshnet_temporal",),
    ),
    "hyrsmpp": Method(
        target="temporal.hyrsmpp:HyRSMPlusPlus",
        paper=Paper(
            authors="Wang et al.",
            title="HyRSM++: Hybrid Relation Guided Temporal Set Matching for Few-shot Action Recognition",
            venue="Pattern Recognition",
            year=2024,
            url=arxiv("2301.03330"),
        ),
        regime="episodic",
        reads_time=True,
        fits_base=True,
        reference=("hyrsmpp_1shot", "hyrsmpp_5shot"),
    ),
    "uot": Method(
        target="temporal.uot:UOT",
        paper=Paper(
            authors="Li et al.",
            title="Frame Order Matters: A Temporal Sequence-Aware Model for Few-Shot Action Recognition",
            venue="arXiv",
            year=2024,
            url=arxiv("2408.12475"),
        ),
        regime="none",
        reads_time=True,
        reference=("uot_sinkhorn",),
    ),
    "team": Method(
        target="temporal.team:TEAM",
        paper=Paper(
            authors="Lee et al.",
            title="Temporal Alignment-Free Video Matching for Few-shot Action Recognition",
            venue="CVPR",
            year=2025,
            url=arxiv("2504.05956"),
        ),
        regime="episodic",
        reads_time=True,
        reference=("team", "team_neg_with_pos_loss", "team_pos", "team_pos_neg"),
    ),
    "tsdcm": Method(
        target="temporal.tsdcm:TSDCM",
        paper=Paper(
            authors="Long et al.",
            title="Task-Specific Distance Correlation Matching for Few-Shot Action Recognition",
            venue="arXiv",
            year=2025,
            url=arxiv("2512.11340"),
        ),
        regime="none",
        reads_time=True,
        fits_base=True,
        reference=("tsdcm",),
    ),
    "mpl": Method(
        target="temporal.mpl:MPL",
        paper=Paper(
            authors="Authors not verified",
            title="MPL: Match-guided Prototype Learning for Few-shot Action Recognition",
            venue="CVPR",
            year=2026,
            url="https://cvpr.thecvf.com/virtual/2026/poster/36569",
        ),
        regime="episodic",
        transductive=True,
        reads_time=True,
        reference=("mpl",),
    ),
    # multimodal
    "amefunet": Method(
        target="multimodal.amefunet:AMeFuNet",
        paper=Paper(
            authors="Fu et al.",
            title="Depth Guided Adaptive Meta-Fusion Network for Few-shot Video Recognition",
            venue="ACM MM",
            year=2020,
            url=arxiv("2010.09982"),
        ),
        regime="episodic",
        modalities="two",
        reads_time=True,
        reference=("amefunet",),
    ),
    "knowledge-driven": Method(
        target="multimodal.knowledge_driven:KnowledgeDriven",
        paper=Paper(
            authors="Huang et al.",
            title="Knowledge-driven Egocentric Multimodal Activity Recognition",
            venue="TOMM",
            year=2020,
            url="https://doi.org/10.1145/3409332",
        ),
        regime="episodic",
        modalities="any",
        words="needed",
        zero_shot=True,
        reads_time=True,
        fits_base=True,
        relations=True,
    ),
    "protagonist": Method(
        target="multimodal.protagonist:Protagonist",
        paper=Paper(
            authors="Qi et al.",
            title="Multimodal Protagonist-aware Transformer for zero-shot video emotion",
            venue="ACM MM",
            year=2021,
            url="https://openreview.net/forum?id=IJsVW47fjj",
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reads_time=True,
    ),
    "few-shot-egocentric": Method(
        target="multimodal.few_shot_egocentric:FewShotEgocentric",
        paper=Paper(
            authors="Pan et al.",
            title="Few-shot Egocentric Multimodal Activity Recognition",
            venue="MMAsia",
            year=2021,
            url="https://doi.org/10.1145/3469877.3490603",
        ),
        regime="episodic",
        modalities="any",
        words="needed",
        reads_time=True,
        fits_base=True,
        relations=True,
    ),
    "amfar": Method(
        target="multimodal.amfar:AMFAR",
        paper=Paper(
            authors="Wanyan et al.",
            title="Active Exploration of Multimodal Complementarity for Few-Shot Action Recognition",
            venue="CVPR",
            year=2023,
            url="https://openaccess.thecvf.com/content/CVPR2023/html/Wanyan_Active_Exploration_of_Multimodal_Complementarity_for_Few-Shot_Action_Recognition_CVPR_2023_paper.html",
        ),
        regime="episodic",
        modalities="two",
        reads_time=True,
        fits_base=True,
        branches=("protonet", "otam", "trx"),
    ),
    "ragpt": Method(
        target="multimodal.ragpt:RAGPT",
        paper=Paper(
            authors="Authors not verified",
            title="RAGPT (retrieval-augmented prompts for missing modalities)",
            venue="AAAI",
            year=2025,
            url=arxiv("2501.01120"),
        ),
        regime="episodic",
        modalities="two",
        reads_time=True,
        fits_base=True,
        reference=("ragpt",),
    ),
    # embedding
    "ridge-words": Method(
        target="embedding.ridge_words:RidgeWords",
        paper=Paper(
            authors="Palatucci et al.",
            title="Zero-shot Learning with Semantic Output Codes",
            venue="NeurIPS",
            year=2009,
            url="https://papers.nips.cc/paper/2009/hash/1543843a4723ed2ab08e18053ae6dc5b-Abstract.html",
        ),
        regime="none",
        words="needed",
        zero_shot=True,
        reads_supports=False,
        fits_base=True,
    ),
    "common-space": Method(
        target="embedding.common_space:CommonSpace",
        paper=Paper(
            authors="Frome et al.",
            title="DeViSE: A Deep Visual-Semantic Embedding Model",
            venue="NeurIPS",
            year=2013,
            url="https://papers.nips.cc/paper/2013/hash/7cce53cf90577442771720a370c3c723-Abstract.html",
        ),
        regime="batch",
        modalities="any",
        words="optional",
        zero_shot=True,
        reads_time_if="projection=transformer",
        fits_base=True,
    ),
    "word-prototypes": Method(
        target="embedding.word_prototypes:WordPrototypes",
        paper=Paper(
            authors="Shigeto et al.",
            title="Ridge Regression, Hubness, and Zero-Shot Learning",
            venue="ECML PKDD",
            year=2015,
            url=arxiv("1507.00825"),
        ),
        regime="none",
        words="needed",
        zero_shot=True,
        reads_supports=False,
        fits_base=True,
    ),
    "cjme": Method(
        target="embedding.cjme:CJME",
        paper=Paper(
            authors="Parida et al.",
            title="Coordinated Joint Multimodal Embeddings for Generalized Audio-Visual Zero-shot Classification and "
            "Retrieval of Videos",
            venue="WACV",
            year=2020,
            url=arxiv("1910.08732"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reference=("cjme",),
    ),
    "avgzslnet": Method(
        target="embedding.avgzslnet:AVGZSLNet",
        paper=Paper(
            authors="Mazumder et al.",
            title="AVGZSLNet: Audio-Visual Generalized Zero-Shot Learning by Reconstructing Label Features from "
            "Multi-Modal Embeddings",
            venue="WACV",
            year=2021,
            url=arxiv("2005.13402"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reference=("avgzslnet", "avgzslnet_official"),
    ),
    "avca": Method(
        target="embedding.avca:AVCA",
        paper=Paper(
            authors="Mercea et al.",
            title="Audio-visual Generalised Zero-shot Learning with Cross-modal Attention and Language",
            venue="CVPR",
            year=2022,
            url=arxiv("2203.03598"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reference=("avca", "avood_gate"),
    ),
    "tcaf": Method(
        target="embedding.tcaf:TCaF",
        paper=Paper(
            authors="Mercea et al.",
            title="Temporal and cross-modal attention for audio-visual zero-shot learning",
            venue="ECCV",
            year=2022,
            url=arxiv("2207.09966"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reads_time=True,
        reference=("tcaf",),
    ),
    "avdiff": Method(
        target="embedding.avdiff:AVDIFF",
        paper=Paper(
            authors="Mercea et al.",
            title="Text-to-feature diffusion for audio-visual few-shot learning",
            venue="GCPR",
            year=2023,
            url=arxiv("2309.03869"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reads_time=True,
        branches=("linear-probe",),
        reference=("avdiff", "gfsl_beta"),
    ),
    "clipclap": Method(
        target="embedding.clipclap:ClipClap",
        paper=Paper(
            authors="Kurzendörfer et al.",
            title="Audio-Visual Generalized Zero-Shot Learning using Pre-Trained Large Multi-Modal Models",
            venue="CVPRW",
            year=2024,
            url=arxiv("2404.06309"),
        ),
        regime="batch",
        modalities="two",
        words="needed",
        zero_shot=True,
        reference=("clipclap", "gzsl_beta"),
    ),
    # language
    "frozen-space": Method(
        target="language.frozen_space:FrozenSpace",
        paper=Paper(
            authors="Radford et al.",
            title="Learning Transferable Visual Models From Natural Language Supervision",
            venue="ICML",
            year=2021,
            url=arxiv("2103.00020"),
        ),
        regime="none",
        words="needed",
        zero_shot=True,
        reads_supports=False,
        fits_base=True,
    ),
    "tip-adapter": Method(
        target="language.tip_adapter:TipAdapter",
        paper=Paper(
            authors="Zhang et al.",
            title="Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
            venue="ECCV",
            year=2022,
            url=arxiv("2207.09519"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("tipadapter",),
    ),
    "tip-adapter-f": Method(
        target="language.tip_adapter:TipAdapterF",
        paper=Paper(
            authors="Zhang et al.",
            title="Tip-Adapter: Training-free Adaption of CLIP (with trained keys)",
            venue="ECCV",
            year=2022,
            url=arxiv("2207.09519"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("tipadapter",),
    ),
    "clipfsar": Method(
        target="language.clipfsar:CLIPFSAR",
        paper=Paper(
            authors="Wang et al.",
            title="CLIP-guided Prototype Modulating for Few-shot Action Recognition",
            venue="IJCV",
            year=2023,
            url=arxiv("2303.02982"),
        ),
        regime="episodic",
        words="optional",
        reads_time=True,
        fits_base=True,
        reference=("clipfsar",),
    ),
    "cross-modal": Method(
        target="language.cross_modal:CrossModal",
        paper=Paper(
            authors="Lin et al.",
            title="Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models",
            venue="CVPR",
            year=2023,
            url=arxiv("2301.06267"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("crossmodal",),
    ),
    "taskres": Method(
        target="language.clap:TaskRes",
        paper=Paper(
            authors="Yu et al.",
            title="Task Residual for Tuning Vision-Language Models",
            venue="CVPR",
            year=2023,
            url=arxiv("2211.10277"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("taskres",),
    ),
    "gda": Method(
        target="language.gda:GDA",
        paper=Paper(
            authors="Wang et al.",
            title="A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation",
            venue="ICLR",
            year=2024,
            url=arxiv("2402.04087"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("gda",),
    ),
    "gda-new": Method(
        target="language.gda_new:GDANew",
        paper=Paper(
            authors="Wang et al.",
            title="A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation (base to new)",
            venue="ICLR",
            year=2024,
            url=arxiv("2402.04087"),
        ),
        regime="none",
        words="needed",
        zero_shot=True,
        reads_supports=False,
        fits_base=True,
        reference=("gda_new",),
    ),
    "lppp": Method(
        target="language.lppp:LPPP",
        paper=Paper(
            authors="Huang et al.",
            title="LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
            venue="CVPR",
            year=2024,
            url=arxiv("2404.02285"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("lppp",),
    ),
    "zs-lp": Method(
        target="language.clap:ZSLP",
        paper=Paper(
            authors="Silva-Rodriguez et al.",
            title="A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models (ZS-LP)",
            venue="CVPR",
            year=2024,
            url=arxiv("2312.12730"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("zslp",),
    ),
    "clap": Method(
        target="language.clap:CLAP",
        paper=Paper(
            authors="Silva-Rodriguez et al.",
            title="A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
            venue="CVPR",
            year=2024,
            url=arxiv("2312.12730"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        reference=("clap", "clap_adaptative"),
    ),
    "actalign": Method(
        target="language.actalign:ActAlign",
        paper=Paper(
            authors="Aghdam et al.",
            title="ActAlign: Zero-Shot Fine-Grained Video Classification via Language-Guided Sequence Alignment",
            venue="arXiv",
            year=2025,
            url=arxiv("2506.22967"),
        ),
        regime="none",
        words="needed",
        zero_shot=True,
        reads_supports=False,
        reads_time=True,
        fits_base=True,
        reference=("actalign",),
    ),
    "hoso": Method(
        target="language.hoso:HOSO",
        paper=Paper(
            authors="Vorster et al.",
            title="Hold-One-Shot-Out (HOSO) for Validation-Free Few-Shot CLIP Adapters",
            venue="arXiv",
            year=2026,
            url=arxiv("2603.04341"),
        ),
        regime="none",
        words="needed",
        fits_base=True,
        branches=(
            "ridge",
            "protonet",
            "simpleshot",
            "nearest",
            "linear-probe",
            "finetune",
            "ridge-words",
            "gda-new",
        ),
    ),
}


@cache
def methods() -> dict[str, Method]:
    """All methods by name: those above, then those of other packages. Raises FsmmError for an unusable row."""
    return {**METHODS, **rows_of(GROUP, Method, METHODS)}


def find(name: str) -> tuple[Method, str | None]:
    """The method called ``name`` and its fusion; ``protonet-lf`` means ProtoNet with late fusion.

    Raises UsageError for an unknown name.
    """
    known = methods()
    if name in known:
        return known[name], None
    stem, _, fusion = name.rpartition("-")
    if fusion in FUSIONS and stem in known:
        if known[stem].modalities != "one":
            raise UsageError(f"Method {stem!r} takes several modalities by itself; leave out the fusion.")
        return known[stem], fusion
    raise unknown("method", name, known)


def base_name(name: str) -> str:
    """``protonet`` of ``protonet-lf``."""
    return name if name in methods() else name.rpartition("-")[0]


def page_of(name: str) -> str | None:
    """The path of the page about a method in the project, or None for a method of another package."""
    return f"docs/methods/{SHARED_PAGES.get(name, name)}.md" if name in METHODS else None


def rows() -> list[dict[str, object]]:
    """What ``fsmm methods`` prints: a dict of plain values for every method."""
    return [
        {
            "name": name,
            "family": method.family,
            "paper": f"{method.paper.authors}, {method.paper.title}",
            "venue": method.paper.venue,
            "year": method.paper.year,
            "url": method.paper.url,
            "regime": method.regime,
            "transductive": method.transductive,
            "modalities": method.modalities,
            "words": method.words,
            "zero_shot": method.zero_shot,
            "reads_supports": method.reads_supports,
            "reads_unlabelled": method.reads_unlabelled,
            "reads_time": method.reads_time,
            "reference": list(method.reference),
            "page": page_of(name),
        }
        for name, method in methods().items()
    ]
