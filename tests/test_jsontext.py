import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import jsontext

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read_back(value):
    assert jsontext.parse(jsontext.write(value)) == value
    assert jsontext.parse(json.dumps(value)) == value


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        json.dumps(jsontext.parse(text)).encode()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e400", "too large"),
        ("[" * 100_000, "nested"),
        ('"\\ud800"', "surrogate"),
        ("1" * 5_000, "digits"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_python_lets_through_is_refused(text, word):
    with pytest.raises(ValueError, match=word):
        jsontext.parse(text)
