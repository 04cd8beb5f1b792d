"""The search: Optuna proposes settings and keeps what was found, in a database of the tuning's folder.

What is proposed next depends on the trials that have ended and on the seed alone. A tuning that was interrupted, or
killed, therefore goes on with the very settings that an uninterrupted one would have tried, and loses the trial at hand
alone. Where the settings have no more combinations than trials are asked for, all of them are tried in turn.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import FsmmError, install_hint
from ...machine.checked import CHECK, with_check
from .space import Dimension

if TYPE_CHECKING:
    import optuna

DATABASE = "optuna.db"
_NAME = "tuning"
_FIRST = 10  # The trials at random before the sampler draws on what it has seen.
_ATTEMPTS = 20  # Proposals that were tried already are replaced so many times.


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Some settings that were tried."""

    number: int
    """The trial's number, from 0 on."""
    settings: Mapping[str, str]
    """The searched settings as --set takes them."""
    value: float | None = None
    """The accuracy that is maximised, in 0..1; None where the trial failed."""
    accuracy: Sequence[float] = ()
    """The accuracy on each part."""
    reason: str = ""
    """Why the trial failed; empty where it did not."""
    seconds: float = 0.0
    """The time of the trial in seconds."""


class Search:
    """The trials of one tuning, which Optuna keeps.

    folder: the tuning's folder. Raises FsmmError where Optuna is not installed or its database cannot be used.
    """

    def __init__(self, folder: Path, space: Sequence[Dimension], seed: int) -> None:
        check_installed()
        import optuna
        import sqlalchemy

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.seed, self._path = list(space), seed, folder / DATABASE
        self._distributions = {each.key: _distribution(each) for each in space}
        url = sqlalchemy.engine.URL.create("sqlite", database=str(self._path)).render_as_string()
        with self._readable():
            self._study = optuna.create_study(
                storage=optuna.storages.RDBStorage(url.replace("{", "{{").replace("}", "}}")),
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
            )

    @property
    def size(self) -> float:
        """The number of combinations of settings; infinite where a range of real numbers is among them."""
        return math.prod(dimension.size for dimension in self.space)

    def trials(self) -> list[Trial]:
        """The trials that have ended. Raises FsmmError where the database was changed since they were kept."""
        with self._readable():
            kept = self._study.get_trials(deepcopy=False)
            trials = [_trial(each) for each in kept]
        for each, trial in zip(kept, trials):
            if each.user_attrs.get(CHECK, _check(trial)) != _check(trial):
                raise FsmmError(
                    f"Trial {trial.number} in {str(self._path)!r} is not as it was written; name another folder with "
                    "--out."
                )
        return trials

    def propose(self, trials: int) -> dict[str, str] | None:
        """The settings of the next trial of so many in all; None where every combination was tried."""
        tried = [dict(trial.settings) for trial in self.trials()]
        if self.size <= trials:
            every = itertools.product(*map(_values, self.space))
            named = (dict(zip(self._distributions, texts)) for texts in every)
            return next((settings for settings in named if settings not in tried), None)
        for attempt in range(_ATTEMPTS):
            settings = self._proposal(len(tried), attempt)
            if settings not in tried:
                break
        return settings

    def add(self, trial: Trial) -> None:
        """Keep a trial that has ended."""
        from optuna.trial import TrialState, create_trial

        params = {d.key: d.value(trial.settings[d.key]) for d in self.space}
        kept = create_trial(
            state=TrialState.FAIL if trial.reason else TrialState.COMPLETE,
            params=params,
            distributions=self._distributions,
            value=trial.value,
            user_attrs={**_told(trial), CHECK: _check(trial)},
        )
        with self._readable():
            self._study.add_trial(kept)

    def _proposal(self, ended: int, attempt: int) -> dict[str, str]:
        """What Optuna proposes after so many trials."""
        import optuna

        # The startup trials and the model draw from a generator of their own for each trial.
        seed = (self.seed * 1_000_003 + ended * _ATTEMPTS + attempt) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST, multivariate=True)
        memory = optuna.create_study(direction="maximize", sampler=sampler)
        with self._readable():
            memory.add_trials(self._study.get_trials(deepcopy=False))
        asked = memory.ask(self._distributions)
        return {d.key: d.text(asked.params[d.key]) for d in self.space}

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise FsmmError in place of the errors of the database."""
        import optuna
        import sqlalchemy

        faults = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, KeyError, AssertionError)
        try:
            yield
        except faults as error:
            why = str(error.__cause__ or error).splitlines()[0].rstrip(".")
            raise FsmmError(
                f"The trials in {str(self._path)!r} cannot be kept or read ({why}); free space there, or name another "
                "folder with --out."
            ) from None


def check_installed() -> None:
    """Raise FsmmError, which says what to install, where Optuna is not there."""
    if find_spec("optuna") is None:
        raise FsmmError(f"`fsmm tune` searches with Optuna, which is not installed; {install_hint('tune')}.")


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """What Optuna draws a setting from."""
    from optuna import distributions

    if dimension.choices:
        return distributions.CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _values(dimension: Dimension) -> list[str]:
    """The texts of all values of a setting that has finitely many."""
    if dimension.choices:
        return list(dimension.choices)
    return [str(value) for value in range(int(dimension.low), int(dimension.high) + 1)]


def _trial(kept: Any) -> Trial:
    """A trial as Optuna keeps it."""
    about = kept.user_attrs
    return Trial(
        number=kept.number,
        settings=about["settings"],
        value=kept.value if not about["reason"] else None,
        accuracy=about["accuracy"],
        reason=about["reason"],
        seconds=about["seconds"],
    )


def _told(trial: Trial) -> dict[str, Any]:
    """What Optuna keeps of a trial beside its number, parameters and value."""
    return {
        "settings": dict(trial.settings),
        "accuracy": list(trial.accuracy),
        "reason": trial.reason,
        "seconds": trial.seconds,
    }


def _check(trial: Trial) -> str:
    """A digest of all that is read of a trial, since a database does not notice that a bit has flipped."""
    return str(with_check({**_told(trial), "number": trial.number, "value": trial.value})[CHECK])
