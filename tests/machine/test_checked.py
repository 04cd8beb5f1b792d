"""A table with a digest of its own values comes back, and no other one does."""

from __future__ import annotations

import json

import pytest

from fsmm.machine.checked import with_check, without_check
from fsmm.machine.json_text import json_text

TABLE = {"value": 0.1, "best": float("nan"), "rows": (1, [2, None]), "é": {"b": True, "a": "x"}}
STORED = {"value": 0.1, "best": None, "rows": [1, [2, None]], "é": {"b": True, "a": "x"}}


def test_values_come_back_from_json_in_any_order_and_layout() -> None:
    text = json_text(with_check(TABLE))
    assert without_check(json.loads(text)) == STORED
    other = json.dumps(dict(reversed(json.loads(text).items())), indent=3, ensure_ascii=False)
    assert without_check(json.loads(other)) == STORED


def test_each_flipped_bit_is_found_or_changes_no_value() -> None:
    text, found = json_text(with_check(TABLE)).encode(), 0
    for place in range(8 * len(text)):
        data = bytearray(text)
        data[place // 8] ^= 1 << place % 8
        try:
            values = without_check(json.loads(data))
        except ValueError:
            found += 1
        else:
            # What becomes of the key "check" itself leaves the values as they are.
            assert {key: values[key] for key in STORED} == STORED
    assert found > 7 * len(text)


def test_a_table_of_an_earlier_release_is_taken_as_it_is() -> None:
    assert without_check({"a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match="not as it was written"):
        without_check({"a": 1, "check": None})
