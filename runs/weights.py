"""The weights of a run's modalities, where its head fits them on base episodes."""

from __future__ import annotations

from ..episodes.protocol import TooFew
from ..errors import NoClips
from ..heads.head import Head
from ..heads.multimodal.weights import HasWeights, ModalityWeights
from ..heads.settings import Recipe
from .banks import Banks
from .spec import RunSpec
from .tasks import training_protocol

SEED = 0  # Weights depend on the base clips and the task alone, not on a run's seeds.


def fit_weights(head: Head, spec: RunSpec, banks: Banks) -> None:
    """Fit the weights of the head's modalities on base episodes where its settings ask for that.

    They stay equal, with a note, where there are no base classes that could serve the task.
    """
    if not isinstance(head, HasWeights) or not head.fits_weights:
        return
    try:
        task = training_protocol(spec.protocol, Recipe(), banks.base, seed=SEED)
        head.fit_weights(banks.base, task)
    except (NoClips, TooFew) as error:
        head.weights = ModalityWeights.equal(
            list(head.weights.share), f"weights could not be fitted: {error}"
        )
