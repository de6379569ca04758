import pytest

from headstart.classnames import given, meaning, meanings
from headstart.errors import InputError


@pytest.mark.parametrize(
    ("name", "words"),
    [("card_arrival", "card arrival"), ("lateDelivery", "late Delivery"), ("c7", ""), ("12", ""), ("", ""), ("a", ""),
     ("Refund_not_showing-up", "Refund not showing up"), ("LBL_12", ""), ("Überweisung", "Überweisung"), ("no", "no")],
)  # fmt: skip
def test_meaning(name, words):
    assert meaning(name) == words


def test_given(tmp_path):
    assert given(None) == {}
    assert given("a, b ,c") == {"a": "", "b": "", "c": ""}
    assert given("bill: about invoices, and money; other") == {"bill": "about invoices, and money", "other": ""}
    assert given(["x", "y"]) == {"x": "", "y": ""}
    assert given({"x": "about x", "y": ""}) == {"x": "about x", "y": ""}
    (tmp_path / "l.csv").write_text("name,description\nbilling,about invoices\nother,\n")
    assert given(str(tmp_path / "l.csv")) == {"billing": "about invoices", "other": ""}
    for bad in ("a", "", "a,a", ",,"):
        with pytest.raises(InputError):
            given(bad)


def test_meanings():
    assert meanings(["a_bill", "x1"], {}) is None
    assert meanings(["a_bill", "x1"], {"x1": "everything else"}) == ["a bill", "everything else"]
    assert meanings(["a_bill"], {"a_bill": "about money"}) == ["a bill: about money"]
