"""The names that ``import fsmm`` offers."""

from __future__ import annotations

import pytest

import fsmm


@pytest.mark.parametrize("name", fsmm.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fsmm, name)
    assert name in dir(fsmm)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'epsiode_eval'"):
        _ = fsmm.epsiode_eval
