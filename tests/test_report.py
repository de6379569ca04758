"""The report as a document: what it says, what it leaves out, what strangers' texts cannot do to it."""

from __future__ import annotations

import copy
import json
import math
import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import example_facts
from headstart import modelcard, verdict
from headstart.report import mistakes, pictures, render, shell, words

VOID = {"meta", "link", "br", "wbr", "img", "hr", "input", "base"}
# Every element and attribute the page may hold. Nothing here runs, loads, submits or embeds.
ELEMENTS = set(
    re.findall(
        r"\S+",
        """
        html head meta title link style body header main footer nav section div p h1 h2 h3 ul li a strong small em b q
        bdi dfn code time dl dt dd table caption thead tbody tfoot tr th td span br wbr details summary
        svg g line rect circle text polygon polyline desc img
        """,
    )
)
ATTRIBUTES = set(
    re.findall(
        r"\S+",
        """
        lang charset http-equiv content name rel href class id role tabindex scope title datetime aria-label
        aria-labelledby aria-hidden viewbox preserveaspectratio width height x y x1 x2 y1 y2 cx cy r rx dx dy points
        text-anchor src alt
        """,
    )
)


class Document(HTMLParser):
    """A page read strictly: every element closes in its order; texts, attributes and identifiers are kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment in the page: {data[:80]}")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.words.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "".join(data for tag, data in self.words if tag != "style")

    def count(self) -> dict[str, int]:
        return {tag: len(self.all(tag)) for tag in ELEMENTS}


def check(html: str) -> Document:
    """What must hold of every page."""
    document = Document(html)
    assert {tag for tag, _ in document.elements} <= ELEMENTS
    for tag, attributes in document.elements:
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
    for link in document.all("a"):
        assert str(link["href"]).startswith("#")
    assert [str(link["href"]).split(",")[0] for link in document.all("link")] == ["data:image/svg+xml"]
    for picture in document.all("img"):
        assert re.fullmatch(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+", str(picture["src"]))
        assert len(str(picture["alt"])) > 10
    assert len(document.all("img")) <= 60
    identifiers = [a["id"] for _, a in document.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in document.elements:
        for identifier in str(attributes.get("aria-labelledby") or "").split():
            assert identifier in identifiers
    for link in document.all("a"):
        assert str(link["href"])[1:] in identifiers
    headings = [int(tag[1]) for tag, _ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))
    for landmark in ("header", "main", "footer"):
        assert len(document.all(landmark)) == 1
    assert all(cell.get("scope") in ("row", "col") for cell in document.all("th"))
    html.encode("utf-8")  # no lone surrogate
    drawn = re.sub(r'src="[^"]*"', "", html)
    assert "NaN" not in drawn.replace("NaN", "", document.text.count("NaN"))
    return document


@pytest.mark.parametrize("name", example_facts.ALL)
def test_every_page_is_whole_and_small(name: str) -> None:
    html = render(example_facts.ALL[name]())
    check(html)
    assert len(html.encode()) < 300_000


def test_the_page_is_a_pure_function() -> None:
    facts = example_facts.with_test()
    before = copy.deepcopy(facts)
    assert render(facts) == render(json.loads(json.dumps(facts)))
    assert facts == before


def test_seventy_seven_labels_are_quick() -> None:
    facts = example_facts.many()
    render(facts)
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        render(facts)
        best = min(best, time.perf_counter() - start)
    assert best < 0.15


def test_the_policy_forbids_everything_but_the_style() -> None:
    (policy,) = [
        m["content"] for m in check(render({})).all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    ]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    style = shell.style()
    assert "url(" not in style
    assert "@import" not in style
    assert "<" not in style


def test_the_verdict_and_the_figure_come_first() -> None:
    facts = example_facts.classification()
    text = check(render(facts)).text
    estimate = facts["estimate"]
    shown = f"{100 * estimate['accuracy']:.1f}\u202f%"
    interval = f"{100 * estimate['low']:.1f} to {100 * estimate['high']:.1f}\u202f%"
    order = [text.index(s) for s in (*facts["verdict"], "How good it is", shown, interval, "Would more labels help?")]
    assert order == sorted(order)
    sizes = [row["n"] for row in facts["per_class"]]
    assert f"{100 * max(sizes) / sum(sizes):.1f}\u202f%" in text[text.index("always") :][:60]


def test_a_test_file_takes_the_headline() -> None:
    facts = example_facts.with_test()
    text = check(render(facts)).text
    assert "85.0\u202f% accuracy on the 80 rows of your test file" in text
    assert "judged on your test file" in text
    assert f"{100 * facts['estimate']['accuracy']:.1f}\u202f%" in text
    assert "accuracy, unseen test rows: 84.4\u202f%" in text
    assert "always \u2068account access\u2069: 12.5\u202f%" in text  # ten of each in the test file


def test_an_interval_is_drawn_where_it_lies() -> None:
    drawn = pictures.gauge("x", 0.8, 0.7, 0.875, (0.25, "base"), "accuracy")
    assert 'class="band" x="70%" width="17.5%"' in drawn
    assert 'class="dot" cx="80%"' in drawn
    assert 'class="base" x1="25%" x2="25%"' in drawn
    assert "95 % interval from 70.0\u202f% to 87.5\u202f%" in drawn
    row = pictures.strips("c", ("a", "b"), [pictures.Strip("n", 0.5, 0.4, 0.6, 0.1)])
    assert 'class="band" x="40%" width="20%"' in row
    assert 'class="hollow" cx="10%"' in row


def test_the_curve_rises_with_its_numbers() -> None:
    known = [pictures.Point(n, v, v - 0.05, v + 0.05) for n, v in ((50, 0.6), (100, 0.7), (200, 0.75))]
    drawn = pictures.curve("c", known, pictures.Point(400, 0.78, 0.7, 0.86), "t", "accuracy")
    (line,) = re.findall(r'class="line" points="([^"]*)"', drawn)
    places = [tuple(map(float, pair.split(","))) for pair in line.split()]
    across, down = zip(*places, strict=True)
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.02)  # doubling is one step
    assert down[0] > down[1] > down[2]
    assert "400 (2×)" in drawn
    assert "Expected with 400: 78.0\u202f%" in drawn


def test_labels_come_weakest_first_and_long_lists_fold() -> None:
    facts = example_facts.many()
    html = render(facts)
    labels = html[html.index('id="labels"') : html.index('id="mixed"')]
    weakest = min(facts["per_class"], key=lambda row: row["f1"])["label"]
    assert re.search(r'<th scope="row"><bdi>([^/]*)</bdi>', labels).group(1).replace("<wbr>", "") == weakest  # type: ignore[union-attr]
    assert "The other 57 labels" in labels
    assert labels.count('<th scope="row">') == 77


def test_many_labels_show_the_block_that_is_mixed_up() -> None:
    counts = [[0] * 40 for _ in range(40)]
    for i in range(40):
        counts[i][i] = 50
    counts[3][30], counts[30][3], counts[30][7], counts[12][13], counts[20][21] = 9, 4, 3, 5, 1
    assert mistakes.most_confused(counts, 5) == [3, 30, 7, 12, 13]
    table, note = mistakes.confusion({"labels": [f"l{i}" for i in range(40)], "counts": counts})
    assert table.count('<th scope="row"') == 7
    assert "Of 40 labels, these 7" in note
    assert "22 of all 22 mistakes" in note


def test_mistakes_outside_the_block_are_counted_as_elsewhere() -> None:
    c = 30
    counts = [[10 if i == j else 1 if (i + 1) % c == j else 0 for j in range(c)] for i in range(c)]
    table, note = mistakes.confusion({"labels": list(range(c)), "counts": counts})
    shown = [int(n) for n in re.findall(r'<td class="w\d">(\d+)</td>', table)]
    assert sum(shown) == mistakes.BLOCK  # one of each row shown, here or elsewhere
    assert f"these {mistakes.BLOCK}" in note
    assert "of all 30 mistakes" in note


def test_a_perfect_model_of_many_labels_says_so() -> None:
    counts = [[5 if i == j else 0 for j in range(30)] for i in range(30)]
    assert mistakes.confusion({"labels": list(range(30)), "counts": counts}) == (
        "",
        "None of the 30 labels was taken for another.",
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"labels": ["a"], "counts": [[1, 2]]},
        {"labels": ["a", "b"], "counts": [[1, 2]]},
        {"labels": [], "counts": []},
        {"labels": None, "counts": 3},
    ],
)
def test_an_unusable_confusion_is_left_out(broken: dict[str, Any]) -> None:
    assert mistakes.confusion(broken) == ("", "")


@pytest.mark.parametrize("task", ["classification", "several", "regression", "images"])
def test_each_piece_can_be_missing(task: str) -> None:
    full = {
        "classification": example_facts.with_test,
        "several": example_facts.several,
        "regression": example_facts.regression,
        "images": example_facts.images,
    }[task]()
    for key in full:
        for missing in (None, {}):
            check(render(full | {key: missing}))
        check(render({k: v for k, v in full.items() if k != key}))
    for key, value in full.items():
        if isinstance(value, dict):
            for inner in value:
                check(render(full | {key: value | {inner: None}}))


def test_missing_pieces_leave_no_trace() -> None:
    text = check(render(example_facts.tiny())).text
    for absent in (
        "Would more labels help?",
        "Label by label",
        "What it mixes up",
        "Labels that look wrong",
        "trusted?",
        "unknown",
    ):
        assert absent not in text
    assert check(render({})).all("section") == []


def test_several_labels_show_thresholds_and_the_gain_over_one_half() -> None:
    text = check(render(example_facts.several())).text
    assert "86.1\u202f% micro F1 estimated on 480 rows" in text
    assert "The hollow mark is the same figure with every threshold at 0.5." in text
    assert "When a label is given" in text
    assert "rows with every label right" in text


def test_numbers_show_errors_in_their_unit() -> None:
    html = render(example_facts.regression())
    text = check(html).text
    assert "71.2\u202f% R² estimated" in text
    assert text.index("0.412") < text.index("0.987")
    assert html[html.index('class="cloud"') :].count("<circle") == 400
    assert "A number for each text" in text


def test_suspects_name_row_given_and_suggested() -> None:
    facts = example_facts.classification()
    facts["suspects"] = [{"row": 1234, "text": "a & b", "given": "billing", "suggested": "refund", "probability": 0.97}]
    text = check(render(facts)).text
    assert "a & brow 1,234 · given billing, looks like refund · 97\u202f% sure" in text


def test_pictures_are_shown_with_what_was_said_of_them() -> None:
    facts = example_facts.images()
    facts["suspects"] = facts["suspects"][:1]
    facts["suspects"][0] |= {
        "row": 1234,
        "text": "a & b.jpg",
        "given": "glass",
        "suggested": "metal",
        "probability": 0.97,
    }
    facts["confused"] = facts["confused"][:1]
    facts["confused"][0] |= {"true": "paper", "predicted": "trash", "examples": facts["confused"][0]["examples"][:1]}
    document = check(render(facts))
    pair, suspect = document.all("img")
    assert pair["src"] == facts["confused"][0]["examples"][0]["picture"]
    assert str(pair["alt"]).endswith(".jpg\u2069: \u2068paper\u2069 taken for \u2068trash\u2069")
    assert suspect["alt"] == "\u2068a & b.jpg\u2069: given \u2068glass\u2069, looks like \u2068metal\u2069"
    assert "a & b.jpgglass → metal97\u202f%\u00a0sure · picture\u00a01,234" in document.text


def test_a_page_holds_sixty_pictures_and_names_the_others() -> None:
    facts = example_facts.images()
    one = facts["suspects"][0]
    facts["suspects"] = [one | {"text": f"suspect{k}.jpg"} for k in range(50)]
    pair = facts["confused"][0]
    facts["confused"] = [
        pair | {"examples": [pair["examples"][0] | {"text": f"pair{10 * k + j}.jpg"} for j in range(7)]}
        for k in range(8)
    ]
    document = check(render(facts))
    assert len(document.all("img")) == 60
    assert len(document.all("q")) == 50 - 30 + 7 * 8 - 30
    for name in ("suspect49.jpg", "pair76.jpg"):
        assert name in document.text


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/svg+xml,<svg onload='alert(1)'/>",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/jpeg;base64,AAAA' onerror='alert(1)",
        'data:image/jpeg;base64,AAAA" onerror="alert(1)',
        "data:image/jpeg;base64,AAAA\n",
        " data:image/jpeg;base64,AAAA",
        "DATA:image/jpeg;base64,AAAA",
        "data:image/jpeg;base64,",
        "data:image/jpeg;charset=x;base64,AAAA",
        "data:image/gif;base64,AAAA",
        "https://example.org/a.jpg",
        "javascript:alert(1)",
        "data:image/png;base64," + "A" * 50_000,
        7,
        None,
        ["data:image/jpeg;base64,AAAA"],
    ],
)
def test_only_small_pictures_written_out_are_shown(uri: object) -> None:
    assert words.thumbnail(uri) is None
    facts = example_facts.images()
    for each in facts["suspects"]:
        each["picture"] = uri
    facts["confused"] = []
    html = render(facts)
    assert check(html).all("img") == []
    assert html.count("not shown") == len(facts["suspects"])


def test_good_pictures_pass() -> None:
    for uri in ("data:image/jpeg;base64,/9j/4AAQ", "data:image/png;base64,iVBORw0KGg==", example_facts.thumbnail(3)):
        assert words.thumbnail(uri) == uri


def test_a_model_of_texts_shows_no_picture() -> None:
    """Only a model that says it is of pictures shows them; an old one does not say."""
    facts = example_facts.images()
    del facts["modality"]
    assert check(render(facts)).all("img") == []


def test_words_fit_the_modality() -> None:
    facts = example_facts.images() | {"test": example_facts.with_test()["test"], "curve": None}
    facts["head"]["tie"] = None
    text = check(render(facts)).text
    for word in (" rows", " row ", " text", "texts"):
        assert word not in text.replace("mend its row in the list", ""), word
    assert "on the 80 pictures of your test set" in text
    assert "labelled pictures" in text
    words_of_texts = check(render(example_facts.with_test())).text
    assert "picture" not in words_of_texts
    assert "on the 80 rows of your test file" in words_of_texts


def test_files_left_out_are_counted_and_the_first_are_named() -> None:
    facts = example_facts.images()
    text = check(render(facts)).text
    assert "23 pictures could not be read and were left out." in text
    assert "glass/broken0.jpg picture 7: truncated JPEG" in text
    assert "glass/broken19.jpg" in text
    assert "glass/broken20.jpg" not in text
    assert "And 3 more." in text
    facts["data"]["faults"] = facts["data"]["faults"][:1]
    text = check(render(facts)).text
    assert "1 picture could not be read and was left out." in text
    assert "more." not in text[text.index("could not be read") :][:300]
    for none in ([], None):
        facts["data"]["faults"] = none
        assert "could not be read" not in check(render(facts)).text


def test_what_it_was_made_from_is_complete() -> None:
    text = check(render(example_facts.images())).text
    for said in (
        "parameters below the cut2,223,872",
        "weights below the cut8.91\u202fMB",
        "numbers for each picture1,376 (96 + 1,280)",
        "cut14+top",
        "revision of the sourcea1b2c3d4e5",
        "where its weights arein the model's folder",
        "strength 3, with mirrored views.",
        "strength 3, with mirrored views, chosen",
    ):
        assert said in text, said
    old = check(render(example_facts.classification())).text
    for absent in ("parameters", "revision", "where its weights are", "mirrored"):
        assert absent not in old
    facts = example_facts.images()
    facts["backbone"]["carried"] = False
    assert "shared, outside the model's folder" in check(render(facts)).text


def test_shrinking_is_told_step_by_step() -> None:
    facts = example_facts.images()
    html = render(facts)
    text = check(html).text
    assert (
        "Made from mobilenet-v2-100: 14.0\u202fMB to 2.60\u202fMB, 21\u202fms to 7.9\u202fms, "
        "92.1\u202f% to 91.8\u202f% accuracy." in text
    )
    steps = html[html.index('id="shrunk"') : html.index('id="again"')]
    assert steps.count('<th scope="row">') == 5
    assert text.index("cut at 14 kept") < text.index("half of the channels not kept")
    assert steps.count("class=pale") == 1
    assert steps.count("class=strong") == 2
    assert "How it was made smaller" not in check(render(example_facts.classification())).text
    for broken in (None, [], {"before": None, "steps": [None, {"name": "x"}, {"accuracy": "much"}]}, {"steps": 3}):
        assert 'id="shrunk"' not in render(facts | {"shrunk": broken})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 bytes"),
        (640, "640 bytes"),
        (12_345, "12.3\u202fkB"),
        (8_912_345, "8.91\u202fMB"),
        (1.204e9, "1,204\u202fMB"),
    ],
)
def test_size(value: float, shown: str) -> None:
    assert words.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0421, "0.042"), (0.96, "1.0"), (3.14, "3.1"), (9.96, "10"), (27.4, "27"), (1204, "1,204")]
)
def test_milliseconds(value: float, shown: str) -> None:
    assert words.milliseconds(value) == f"{shown}\u202fms"


@pytest.mark.parametrize("image", [False, True])
def test_verdict_and_card_fit_the_modality(image: bool) -> None:
    facts = example_facts.images() if image else example_facts.with_test()
    facts["test"] = example_facts.with_test()["test"]
    facts["data"]["test_overlap"] = 3
    facts["head"]["tie"] = None
    said = " ".join(verdict.sentences(facts))
    assert ("of the 80 test pictures;" in said) is image
    assert ("of the 80 test rows;" in said) is not image
    assert ("3 test pictures also occur" in said) is image
    assert (
        "23 files could not be read and were left out, the first is glass/broken0.jpg (truncated JPEG)" in said
    ) is image
    facts["test"] = facts["data"]["test_overlap"] = None
    assert f"of {'pictures' if image else 'texts'} like these (" in verdict.sentences(facts)[0]
    facts["estimate"]["low"] = 0.0
    assert f"these {'pictures' if image else 'texts'} may not tell" in " ".join(verdict.sentences(facts))
    if image:
        facts["data"]["faults"] = facts["data"]["faults"][:1]
        assert "One file could not be read and was left out: glass/broken0.jpg (truncated JPEG)." in verdict.sentences(
            facts
        )


@pytest.mark.parametrize("image", [False, True])
def test_the_model_card_fits_the_modality(image: bool) -> None:
    facts = example_facts.images() if image else example_facts.with_test()
    card = {
        "name": facts["name"], "labels": facts["labels"], "backbone": facts["backbone"], "made": facts["made"], "seed": 0,
        "head": facts["head"], "versions": {"headstart": "0.1.0"},
    }  # fmt: skip
    made = modelcard.render(card, facts)
    assert f"pipeline_tag: {'image' if image else 'text'}-classification" in made
    assert f'type: "{"image" if image else "text"}-classification"' in made
    assert ("its weights below the cut are in this folder" in made) is image
    assert ("none of its weights are in this folder" in made) is not image
    assert (f"{facts['data']['used']:,} {'pictures' if image else 'examples'}, SHA-256") in made
    assert ('model.predict(["picture.jpg"])' in made) is image
    assert ("linear and mirrored views:" in made) is image


def test_hostile_strings_stay_strings() -> None:
    calm = example_facts.hostile()
    flat = json.loads(json.dumps(calm))

    def tame(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: tame(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [tame(v) for v in value]
        if isinstance(value, str) and value in example_facts.HOSTILE:
            return f"calm {example_facts.HOSTILE.index(value)}"
        return value

    hostile = check(render(calm))
    assert hostile.count() == check(render(tame(flat))).count()  # the same elements, whatever the strings
    assert "<script>document.title='owned'</script>" in hostile.text
    assert "javascript:alert(1)" in hostile.text
    for character in "\x00\x07\x1b\u202e\u2066\ufffe\uffff\u200b\u00ad":
        assert character not in hostile.text.replace("\u2068", "")
    assert "⟨U+202E⟩evil⟨U+202C⟩" in hostile.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("  two\n\twords ", "two words"),
        ("", "(empty)"),
        (" \u2003\n", "(empty)"),
        (None, "(empty)"),
        (7, "7"),
        ("x" * 61, "x" * 59 + "…"),
        ("x" * 60, "x" * 60),
        (" " * 5000 + "late", "late"),
        ("a" + " " * 5000 + "b", "a…"),
        ("a\u0301\u0301\u0301\u0301\u0301\u0301b", "a\u0301\u0301\u0301\u0301b"),
        ("NUL\x00", "NUL⟨U+0000⟩"),
        ("\udc80", "\ufffd"),
        ("می‌خواهم", "می‌خواهم"),  # the joiner Persian needs stays
    ],
)
def test_clean(text: object, shown: str) -> None:
    assert words.clean(text) == shown


@given(st.text(max_size=300), st.integers(8, 100))
@settings(max_examples=200, deadline=None)
def test_clean_is_short_and_harmless(text: str, most: int) -> None:
    shown = words.clean(text, most)
    assert shown
    assert len(shown) <= 10 * most
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x00\n") & set(shown)
    Document(f'<p title="{words.plain(text, most)}">{words.show(text, most)}</p>')


def test_ten_megabytes_of_text_are_quick() -> None:
    start = time.perf_counter()
    assert len(words.show("x\u0301 " * 5_000_000)) < 200
    assert time.perf_counter() - start < 0.5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_facts_break_the_page(data: st.DataObject) -> None:
    """Anything JSON can hold, put anywhere in good facts, gives a whole page."""
    whole = [example_facts.with_test, example_facts.several, example_facts.regression, example_facts.images]
    facts = data.draw(st.sampled_from(whole))()
    for _ in range(data.draw(st.integers(1, 4))):
        place: Any = facts
        while True:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 2)) == 0:
                place[key] = data.draw(JSON)
                break
            place = inner
    check(render(facts))


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_an_axis_holds_what_it_shows(low: float, width: float, share: bool) -> None:
    if share:
        low, width = abs(low) % 1.0, width % 1.0
    high = low + width
    drawn = pictures.axis(low, high, share=share)
    assert drawn.low < drawn.high
    assert 2 <= len(drawn.ticks) <= 12
    assert [v for v, _ in drawn.ticks] == sorted({v for v, _ in drawn.ticks})
    slack = 1e-6 * max(1.0, abs(high), abs(low))
    assert drawn.low <= (min(low, 1.0) if share else low) + slack
    assert drawn.high >= (min(high, 1.0) if share else high) - slack
    assert 0 <= drawn.at(low) <= drawn.at(high) <= 100


def test_axis_names_are_round() -> None:
    assert [name for _, name in pictures.axis(0.62, 0.93, share=True).ticks] == ["60", "70", "80", "90", "100\u202f%"]
    assert pictures.axis(0.901, 0.912, share=True).ticks[0][1] == "90.0"
    assert [name for _, name in pictures.axis(0, 7).ticks] == ["0", "2", "4", "6", "8"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (3.0, "3"), (0.4123456, "0.4123"), (1204.4, "1,204"), (-2.5, "−2.5"), (1e-7, "1e−07")],
)
def test_figure(value: float, shown: str) -> None:
    assert words.figure(value) == shown


@pytest.mark.parametrize("value", [None, True, "1", math.nan, math.inf, 10**400, [1], 1e300])
def test_number_refuses(value: object) -> None:
    assert words.number(value) is None


def test_moments() -> None:
    assert words.moment("2026-11-21T04:50:00Z").endswith(">21 November 2026, 04:50 UTC</time>")
    assert words.moment("2026-11-21T04:50:00").endswith(">21 November 2026, 04:50 UTC</time>")
    assert words.moment("yesterday") == "<bdi>yesterday</bdi>"


def _luminance(colour: tuple[float, float, float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_contrast(theme: str) -> None:
    """Ink, soft ink, links and the numbers in the table of mix-ups: at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    style = shell.style()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    block = light if theme == "light" else light + dark
    named = dict(re.findall(r"--([\w-]+): ([^;]+);", block))

    def colour(name: str) -> tuple[float, float, float]:
        value = named[name]
        if value.startswith("#"):
            return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
        r, g, b = map(float, value.split())
        return r, g, b

    paper = colour("paper")
    for ink in ("ink", "soft", "blue", "orange"):
        assert _contrast(colour(ink), paper) >= 4.5, ink
    assert _contrast(colour("ink"), colour("faint")) >= 4.5
    shades = re.findall(r"\.[rw]\d \{ background: rgb\(var\(--([\w-]+)\) / ([.\d]+)\)", style)
    assert len(shades) == 2 * pictures.SHADES
    for hue, alpha in shades:
        a = float(alpha)
        r, g, b = (a * top + (1 - a) * under for top, under in zip(colour(hue), paper, strict=True))
        assert _contrast(colour("ink"), (r, g, b)) >= 4.5, (hue, alpha)
