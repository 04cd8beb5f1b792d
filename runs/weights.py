"""The weights of a run's modalities, where its head fits them on base episodes."""

from __future__ import annotations

from ..cache.sample import Sample
from ..episodes.protocol import Protocol, TooFew, bounds
from ..errors import NoClips
from ..heads.head import Head
from ..heads.multimodal.weights import HasWeights, ModalityWeights, unfit
from ..heads.settings import Recipe
from .banks import HeadBanks
from .spec import RunSpec
from .tasks import training_protocol

SEED = 0  # Weights depend on the base clips and the task alone, not on a run's seeds.
CLIPS = 4096  # A larger base split is sampled, so that a training-free run need not read it.


def fit_weights(head: Head, spec: RunSpec, banks: HeadBanks) -> None:
    """Fit the weights of the head's modalities on base episodes where its settings ask for that.

    They stay equal, with a note, where that has no meaning or no base classes could serve the task. No base clip is
    read for a test that does not join modalities.
    """
    if not isinstance(head, HasWeights) or not head.fits_weights:
        return
    names = list(head.weights.share)
    if len(compared(names, spec.protocol)) < 2:
        return
    note = unfit(len(names), multi=banks.test.multi) or _unfit(spec.protocol)
    try:
        if not note:
            base = banks.base_sample(_sample(spec.protocol))
            head.fit_weights(base, training_protocol(spec.protocol, Recipe(), base, seed=SEED))
    except (NoClips, TooFew) as error:
        note = f"weights could not be fitted: {error}"
    if note:
        head.weights = ModalityWeights.equal(names, note)


def compared(modalities: list[str], protocol: Protocol) -> list[str]:
    """The modalities that supports and queries both carry."""
    sides = (protocol.support_modalities, protocol.query_modalities)
    return [m for m in modalities if all(side is None or m in side for side in sides)]


def _unfit(protocol: Protocol) -> str:
    """Why base classes cannot say what modalities weigh in a test; "" where they can."""
    if bounds(protocol.k_shot)[1] == 0:
        return "weights are not fitted for a test without supports"
    if protocol.split in ("base", "all"):
        return "weights are not fitted on base classes where the test has them, too"
    return ""


def _sample(protocol: Protocol) -> Sample:
    """The base clips that are read: a class keeps enough for an episode, and all where groups decide who meets whom."""
    if protocol.rules_groups:
        return Sample(clips=CLIPS, least=2**31)
    return Sample(clips=CLIPS, least=bounds(protocol.k_shot)[1] + Recipe().query)
