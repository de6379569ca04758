"""Text as canonical bytes."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import example
from headstart.dataset import read
from headstart.errors import DataError
from headstart.modalities.text import canonical


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)))))
def test_canonical_is_the_text_itself(texts):
    assert [raw.decode("utf-8") for raw in canonical(texts)] == texts


def test_texts_that_look_alike_are_not_one_example():
    composed, decomposed, spaced = canonical(["é", "e\u0301", "é "])
    assert len({composed, decomposed, spaced}) == 3


@pytest.mark.parametrize(("wrong", "said"), [("a\ud800", "U\\+D800"), (5, "int"), (None, "NoneType"), (b"a", "bytes")])
def test_what_is_no_text_is_refused_with_its_row(wrong, said):
    with pytest.raises(DataError, match=f"row 2: .*{said}"):
        canonical(["fine", wrong])


def test_a_data_set_has_the_same_keys():
    texts = ["one", "zwei é", "three\n", "👩‍👩‍👧", "\x1b[31m"]
    found = read(pa.table({"text": texts}), labelled=False)
    assert (found.keys == example.keys(canonical(texts))).all()
