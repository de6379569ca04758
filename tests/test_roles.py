"""Columns find their roles, or the error says how to name them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from headstart.errors import DataError, InputError, NotFound
from headstart.roles import Roles, choose, code_names, words

LONG = [
    "how do I do this thing today",
    "my card has not come back yet",
    "please send me the new one",
    "where is the shop now",
] * 6
SHORT = ["a", "b", "a", "c"] * 6
NUMBERS = [f"{i}" for i in range(24)]


def roles(columns: dict[str, list], labelled: bool = True, **asked: str) -> Roles:
    return choose("t.csv", pa.table(columns), asked, labelled=labelled)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("text", "category"), ("message", "class_label"), ("medical_abstract", "condition_label"),
        ("Sentence", "Label"),
        ("utterance", "intent"), ("Review Text", "Sentiment"), ("tweetBody", "Class"), ("v2", "v1"),
        ("column_2", "column_1"), ("content", "topics"), ("TEXT", "y"),
        ("question", "answer type"), ("sms", "target"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("label_first", [True, False])
def test_by_name_or_content(text, label, label_first):
    columns = {label: SHORT, text: LONG} if label_first else {text: LONG, label: SHORT}
    found = roles(columns)
    assert (found.text, found.label) == (text, label)
    assert found.why[0].startswith(f"text column {text!r}: ")
    assert found.why[1].startswith(f"label column {label!r}: ")


def test_all_roles_at_once():
    found = roles(
        {
            "row_id": NUMBERS, "split": ["train", "Test", "val", ""] * 6, "user_id": ["u1", "u2"] * 12,
            "title": SHORT, "body": LONG, "label": SHORT, "label_text": SHORT,
            "sample_weight": [1.0, 2.0] * 12, "date": ["2020-01-01"] * 24,
        }
    )  # fmt: skip
    assert found == Roles("body", "label", "split", "user_id", "row_id", "sample_weight", found.why)
    assert [line.split()[0] for line in found.why] == ["text", "label", "split", "group", "id", "weight"]


def test_what_is_asked_for_is_taken():
    columns = {"text": LONG, "other": LONG, "label": SHORT, "b": SHORT}
    found = roles(columns, text="other", label="b")
    assert (found.text, found.label) == ("other", "b")
    assert found.why[:2] == ("text column 'other': as asked", "label column 'b': as asked")


def test_a_wrong_name_gives_near_ones():
    with pytest.raises(NotFound, match=r"t\.csv: there is no column 'mesage'\. Did you mean 'message'\?"):
        roles({"message": LONG, "label": SHORT}, text="mesage")
    with pytest.raises(NotFound, match="There is 'label', 'message'"):
        roles({"message": LONG, "label": SHORT}, group="zzz")
    with pytest.raises(InputError, match="cannot be both text and label"):
        roles({"message": LONG, "label": SHORT}, text="message", label="message")


def test_what_cannot_be_told_is_an_error_with_the_flag():
    with pytest.raises(InputError, match=r"which column is the text.*'sentence1', 'sentence2'.*--text"):
        roles({"sentence1": LONG, "sentence2": LONG, "label": SHORT})
    with pytest.raises(InputError, match=r"which column is the label.*'category', 'topic'.*--label"):
        roles({"text": LONG, "category": SHORT, "topic": SHORT})
    with pytest.raises(InputError, match=r"which column is the label.*'a', 'b'.*--label"):
        roles({"text": LONG, "a": SHORT, "b": SHORT})
    with pytest.raises(InputError, match=r"no column looks like a label.*--labels a,b,c"):
        roles({"text": LONG})
    with pytest.raises(InputError, match=r"no column looks like a label"):
        roles({"text": LONG, "id": NUMBERS})
    with pytest.raises(InputError, match=r"no column holds text.*--text"):
        roles({"a": NUMBERS, "b": NUMBERS})
    with pytest.raises(InputError, match="every column is empty"):
        roles({"a": ["", " "], "b": [None, ""]})


def test_without_labels():
    assert roles({"anything": LONG}, labelled=False).text == "anything"
    found = roles({"label": SHORT, "message": LONG}, labelled=False)
    assert found == Roles("message", why=("text column 'message': by its name; 26 characters on average",))
    assert roles({"n": NUMBERS, "t": SHORT}, labelled=False).text == "t"
    assert roles({"only": ["1", "2"]}, labelled=False, text="only").text == "only"


def test_lists_truths_and_numbers_as_labels():
    assert roles({"text": LONG, "what": [["a"], ["a", "b"]] * 12}).label == "what"
    assert roles({"text": LONG, "is_spam": [True, False] * 12}).label == "is_spam"
    assert roles({"text": LONG, "price": [i * 1.5 for i in range(24)]}).label == "price"
    assert roles({"text": LONG, "score": [i * 1.5 for i in range(24)], "other": NUMBERS}).label == "score"


def test_groups_and_ids_need_the_content_too():
    assert roles({"text": LONG, "label": SHORT, "author": NUMBERS}).group is None  # every row alone
    assert roles({"text": LONG, "label": SHORT, "id": SHORT}).id is None  # not unique
    assert roles({"text": LONG, "label": SHORT, "split": ["left", "right"] * 12}).split is None


def test_words():
    assert words("class_label") == words("classLabel") == words("Class Label") == ["class", "label"]
    assert words("v2") == ["v"]
    assert words("") == []


def names_from(path: Path, content: str, wanted: set[str]) -> dict[str, str]:
    path.write_text(content, "utf-8")
    return code_names(path, wanted)


def test_names_of_codes(tmp_path: Path):
    path = tmp_path / "n.csv"
    want = {"1": "cats", "2": "dogs"}
    assert code_names({1: "cats", "2": " dogs"}, {"1"}) == want
    assert names_from(path, "code,name\n1,cats\n2,dogs\n", {"1", "2"}) == want
    assert names_from(path, "name,code\ncats,1\ndogs,2\n", {"1", "2"}) == want
    assert names_from(path, "code,name,remark\n1,cats,x\n2,dogs,y\n", {"1", "2"}) == want
    path = tmp_path / "n.json"
    assert names_from(path, json.dumps(["cats", "dogs", "owls"]), {"0", "2"}) == {"0": "cats", "1": "dogs", "2": "owls"}
    assert names_from(path, json.dumps(["cats", "dogs"]), {"1", "2"}) == want
    path = tmp_path / "bad.csv"
    with pytest.raises(InputError, match="no column holds the codes"):
        names_from(path, "code,name\n7,cats\n8,dogs\n", {"1"})
    with pytest.raises(InputError, match="which column names the codes"):
        names_from(path, "code,x,z\n1,cats,x\n2,dogs,y\n", {"1"})
    with pytest.raises(DataError, match=r"row 2.*two names"):
        names_from(path, "code,name\n1,cats\n1,dogs\n", {"1"})
    with pytest.raises(DataError, match=r"row 1.*has no name"):
        names_from(path, "code,name\n1,\n2,dogs\n", {"1"})
