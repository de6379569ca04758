"""What pages, cards and verdicts say of models that were tuned or taught, and the advice of `fit` to tune."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import example_facts
from headstart import advice, api, backbones, dataset, fit, learning, modelcard, proof, verdict
from headstart.report import distilling, render, tuning, words
from test_report import JSON, check

SAID = "only the last 2 of 6 blocks of minilm differ: 32 tensors, 14.2 MB; the other 72 are the published ones (sha256 53aa...)"
HOW = "the mean of 3 networks, each trained without one of 5 folds"


def history(folds: int = 3, epochs: int = 6) -> list[list[dict[str, float | None]]]:
    return [
        [{"loss": 2.5 - 0.1 * e - 0.01 * f, "held": 1.0 + 0.02 * e * f + 0.1 * f, "right": 0.8} for e in range(epochs)]
        for f in range(folds)
    ]


def rung(name: str, k: int, accuracy: float, **more: Any) -> dict[str, Any]:
    found = {"rung": name, "blocks": k, "accuracy": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02, "n": 400}
    return {**found, "gain": accuracy - 0.8, "noise": 0.006, "seconds": 31.0 * k, "kept": False} | more


def tuned(**more: Any) -> dict[str, Any]:
    """Facts of a tuned model."""
    facts = example_facts.with_test()
    facts["backbone"] |= {"name": "minilm", "said": "minilm, its last 2 of 6 blocks retrained", "carried": True}
    facts["tuning"] = {
        "kept": "blocks:2", "blocks": 2, "tap": "4", "base": "minilm", "rank": None, "from": None, "interrupted": False,
        "rungs": [rung("linear", 0, 0.8), rung("blocks:2", 2, 0.841, kept=True), rung("all", 6, 0.835)],
        "task": "classification", "unlabelled": 0, "how": HOW, "epochs": 4, "history": history(), "torch": 1.04e-7,
        "said": SAID, "of": 6, "tensors": 32, "others": 72, "bytes": 14_200_000, "digest": "53aa",
    }  # fmt: skip
    facts["tuning"] |= more
    return facts


def untouched() -> dict[str, Any]:
    """Facts of a model where tuning did not pay."""
    facts = tuned(kept="linear", blocks=0, rungs=[rung("linear", 0, 0.8, kept=True), rung("blocks:2", 2, 0.79)])
    for key in ("how", "epochs", "history", "torch", "said", "of", "tensors", "others", "bytes", "digest"):
        del facts["tuning"][key]
    facts["backbone"] |= {"carried": False}
    del facts["backbone"]["said"]
    return facts


def taught(to: str = "static", **more: Any) -> dict[str, Any]:
    """Facts of a student."""
    facts = example_facts.with_test()
    facts["backbone"] |= {"name": "minilm-static", "carried": True}
    facts["distilled"] = {
        "from": "tickets", "to": to, "n": 240, "unlabelled": 1200, "agreement": 0.958, "quicker": 301.7, "smaller": 13.6,
        "teacher": {"accuracy": 0.97, "low": 0.95, "high": 0.99, "per_second": 376.7, "mb": 90.262},
        "student": {"accuracy": 0.85, "low": 0.80, "high": 0.89, "per_second": 122770.2, "mb": 6.658},
        "disagree": [
            {"row": 7 + i, "text": f"text number {i}", "teacher": "billing", "student": "sales", "label": label}
            for i, label in enumerate(["billing", "sales", "other"] * 5)
        ],
        "task": "classification",
    }  # fmt: skip
    facts["distilled"] |= more
    return facts


def part(html: str, ident: str) -> str:
    """A section of a page."""
    return re.search(rf'<section aria-labelledby="{ident}">.*?</section>', html, re.DOTALL)[0]


def test_a_tuned_model_says_what_was_retrained_and_how_it_went():
    html = render(tuned())
    text = check(html).text
    for said in (
        "How it was tuned",
        "The last 2 of the 6 blocks of minilm were retrained together with the head; the rest is the published base.",
        "Only the last 2 of 6 blocks of minilm differ: 32 tensors",
        "judged on the same 400 rows held out",
        "the last 2 blocks kept",
        "all 6 blocks",
        "82.1 to 86.1\u202f%",
        "+4.1 ± 1.2",
        "+3.5 ± 1.2",
        f"Kept after 4 of 6 epochs. The final network is {HOW}.",
        "on rows that each had not seen.",
        "to 1e-07.",
    ):
        assert said in text, said
    section = part(html, "tuned")
    assert '<a href="#tuned">Tuning</a>' in html
    assert section.count("class=strong") == 1
    assert section.count("class=pale") == 2
    assert not re.search("interrupted|without a label|rank|starting from", text[text.index("How it was tuned") :])


def test_the_losses_are_drawn_where_they_lie():
    section = part(render(tuned()), "tuned")
    for ident, name in (("loss-held", "Loss on held-out rows, by epoch"), ("loss-own", "Loss of training, by epoch")):
        plot = re.search(
            rf'<svg class="plot curve" role="img" aria-labelledby="{ident}-t {ident}-d">.*?</svg></div>', section
        )
        assert plot, ident
        assert f'<title id="{ident}-t">{name}</title>' in plot[0]
        lines = re.findall(r'<polyline class="line" points="([^"]+)"/>', plot[0])
        assert len(lines) == 3
        assert all(len(line.split()) == 6 for line in lines)
        assert plot[0].count('class="dot"') == 3  # each fold, at the epochs that were kept
        assert 'cx="59.40%"' in plot[0]  # 3 + 94 * 3 / 5
        assert "kept after epoch 4." in plot[0]
    assert "fold 1: 1 after epoch 1, 1 after epoch 6; fold 2: 1.1 after epoch 1, 1.2 after epoch 6" in section
    falling = re.search('id="loss-own-t".*?points="([^"]+)"', section, re.DOTALL)[1]
    ys = [float(pair.split(",")[1]) for pair in falling.split()]
    assert ys == sorted(ys)  # a lower loss is lower on the page
    assert all(0 <= y <= 100 for y in ys)


def test_losses_that_are_not_there_are_left_out():
    for broken in (
        None,
        [],
        [[]],
        [[{"loss": 1.0, "held": 0.5}]],
        "x",
        [{"loss": 1}],
        [[{"held": None}, {"held": "1"}]],
    ):
        html = render(tuned(history=broken))
        check(html)
        assert "polyline" not in part(html, "tuned"), broken
        assert "learns by heart" not in html
    section = part(render(tuned(history=[[{"loss": 2.0, "held": None}, {"loss": 1.0, "held": None}]])), "tuned")
    assert "loss-own" in section
    assert "loss-held" not in section
    one = part(render(tuned(history=[[{"loss": 2.0}, {"loss": float("nan")}, {"loss": 1.0}]], epochs=9)), "tuned")
    assert one.count("<polyline") == 1
    assert "kept" not in re.search('<svg class="plot curve".*', one, re.DOTALL)[0].split("</div>")[0]
    assert "Kept after 9 of 9 epochs." in one  # old histories may be shorter


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"blocks": 6, "kept": "all"}, "All 6 blocks of minilm were retrained together"),
        ({"blocks": 1}, "The last of the 6 blocks of minilm was retrained together"),
        ({"of": None}, "The last 2 blocks of minilm were retrained together"),
        ({"of": None, "blocks": 1, "base": None}, "The last block of the base was retrained together"),
        ({"rank": 8}, "were retrained, by updates of rank 8, together"),
        ({"from": "tickets"}, "together with the head, starting from model tickets; the rest"),
        ({"interrupted": True}, "The run was interrupted: this is the best"),
        ({"unlabelled": 1200}, "1,200 rows without a label took part."),
        ({"rungs": [rung("blocks:2", 2, 0.8), rung("all", 6, 0.8, n=300)]}, "judged on the same rows held out"),
    ],
)
def test_every_kind_of_tuning_has_its_words(more: dict[str, Any], said: str):
    assert said in check(render(tuned(**more))).text


def test_tuning_that_did_not_pay_is_told():
    html = render(untouched())
    text = check(html).text
    assert "Tuning was tried" in text
    assert "Tuning did not beat the head alone, so nothing was retrained." in text
    assert "the head alone kept" in text
    assert "−1.0 ± 1.2" in text
    for absent in ("How it was tuned", "published base", "Kept after", "final network", "retrained with the final"):
        assert absent not in text, absent
    assert "polyline" not in part(html, "tuned")
    assert 'id="tuned"' not in render(example_facts.with_test())
    for nothing in (None, [], {}, {"rungs": 3}, {"rungs": [None, {"rung": "all", "accuracy": "much"}]}):
        assert 'id="tuned"' not in render(tuned() | {"tuning": nothing}), nothing


def test_numbers_and_several_labels_keep_their_units():
    text = check(render(tuned(task="regression"))).text
    assert "R² and its interval" in text
    assert "0.821 to 0.861" in text
    assert "+0.041 ± 0.012" in text
    assert "F1 a row and its interval" in check(render(tuned(task="multilabel"))).text


def test_a_student_stands_beside_its_teacher():
    html = render(taught())
    text = check(html).text
    for said in (
        "What it was taught",
        "A student of model tickets, vectors of tokens, without a network: it gives 95.8\u202f% of its teacher's answers, runs "
        "at 300 times its speed and is 14 times smaller.",
        "97.0\u202f%95.0 to 99.0\u202f%37790.3\u202fMB",
        "85.0\u202f%80.0 to 89.0\u202f%122,7706.66\u202fMB",
        "Measured on 240 rows held out from the student. It also learned from 1,200 rows without a label.",
        "The student has not seen the rows its figure is from, but its teacher has",
        "text number 0 row 7",
        "7 more rows",
    ):
        assert said in text, said
    section = part(html, "distilled")
    assert section.count("<strong><bdi>billing</bdi></strong>") == 5
    assert section.count("<strong><bdi>sales</bdi></strong>") == 5  # and where neither is right, none is bold
    assert section.count('<th scope="row">') == 2 + 15
    assert "What it was taught" not in check(render(example_facts.with_test())).text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"to": "blocks:3"}, "A student of model tickets, the first 3 blocks of the base, retrained: it gives"),
        ({"to": "mlp", "quicker": 0.9, "smaller": 1.0}, "answers, is about as quick and is about as large."),
        ({"smaller": 0.5}, "its speed and is 2 times larger."),
        ({"quicker": None, "smaller": None}, "it gives 95.8\u202f% of its teacher's answers."),
        ({"task": "regression"}, "it gives numbers that correlate with its teacher's by 0.958,"),
        ({"from": None, "to": "x"}, "A student of a larger model: it gives"),
    ],
)
def test_every_kind_of_student_has_its_words(more: dict[str, Any], said: str):
    assert said in check(render(taught(**more))).text


def test_pieces_of_a_student_can_be_missing():
    for key in taught()["distilled"]:
        for wrong in (None, "x", 3, [], {}, float("nan")):
            check(render(taught(**{key: wrong})))
    for nothing in (None, [], {}, {"n": 3}, {"disagree": [{}]}):
        assert 'id="distilled"' not in render(taught() | {"distilled": nothing}), nothing
    alone = check(render(taught(teacher=None, disagree=None))).text
    assert "has seen the rows" not in alone
    assert "Where they disagree" not in alone


def test_strangers_stay_strings():
    """The same elements whatever the strings, and none of them as markup."""

    def spoiled(value: Any, words: list[str]) -> Any:
        if isinstance(value, dict):
            return {key: spoiled(each, words) for key, each in value.items()}
        if isinstance(value, list):
            return [spoiled(each, words) for each in value]
        if isinstance(value, str) and value not in ("classification", "linear", "blocks:2", "all", "static"):
            return words[len(value) % len(words)]
        return value

    strange = tuned(rungs=[*tuned()["tuning"]["rungs"], rung("odd", 0, 0.8)], **{"from": "tickets"})
    for facts, piece in ((strange, "tuning"), (taught(), "distilled")):
        evil = copy.deepcopy(facts)
        evil[piece] = spoiled(facts[piece], list(example_facts.HOSTILE))
        evil["backbone"]["said"] = evil["backbone"]["name"] = "<script>alert(1)</script>"
        marked = copy.deepcopy(facts)
        marked[piece] = spoiled(facts[piece], ["<i>x</i>"])
        marked["backbone"]["said"] = marked["backbone"]["name"] = "<i>x</i>"
        assert "<i>" not in render(marked)
        calm = copy.deepcopy(facts)
        calm[piece] = spoiled(facts[piece], [f"calm {i}" for i in range(len(example_facts.HOSTILE))])
        calm["backbone"]["said"] = calm["backbone"]["name"] = "calm"
        page = check(render(evil))
        assert page.count() == check(render(calm)).count()
        assert "<script>" in page.text
        assert "<script" not in render(evil)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_facts_break_the_sections(data: st.DataObject):
    facts, piece = data.draw(st.sampled_from([(tuned(), "tuning"), (untouched(), "tuning"), (taught(), "distilled")]))
    for _ in range(data.draw(st.integers(1, 4))):
        place: Any = facts[piece]
        while True:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 2)) == 0:
                place[key] = data.draw(JSON)
                break
            place = inner
    check(render(json.loads(json.dumps(facts))))


def test_long_lists_are_bounded():
    facts = tuned(history=history(200, 3000), rungs=[rung(f"blocks:{k}", k, 0.8) for k in range(1, 500)])
    html = render(facts)
    assert part(html, "tuned").count("<polyline") == 2 * tuning.FOLDS
    assert part(html, "tuned").count('<th scope="row">') == tuning.RUNGS
    facts = taught(
        disagree=[{"row": i, "text": "x" * 9000, "teacher": "a", "student": "b", "label": "a"} for i in range(5000)]
    )
    section = part(render(facts), "distilled")
    assert section.count('<th scope="row">') == 2 + distilling.MOST
    assert len(section) < 100_000


@pytest.mark.parametrize(
    ("value", "shown"), [(0.514, "0.51"), (2.53, "2.5"), (13.6, "14"), (325.9, "330"), (12_345, "12,000")]
)
def test_times(value: float, shown: str):
    assert words.times(value) == f"{shown} times"


def card(facts: dict[str, Any]) -> str:
    """README.md of a model with such facts."""
    return modelcard.render(
        {
            "name": facts["name"], "labels": facts["labels"], "backbone": facts["backbone"], "made": facts["made"], "seed": 0,
            "head": facts["head"], "versions": {"headstart": "0.1.0"},
        },
        facts,
    )  # fmt: skip


def test_card_and_page_say_where_the_weights_are():
    whole = example_facts.images()
    assert whole["backbone"]["carried"]
    shared = example_facts.images()
    shared["backbone"]["carried"] = False
    for facts, on_card, on_page in (
        (
            tuned(),
            "minilm, its last 2 of 6 blocks retrained: only what was changed is in this folder, and the base minilm must be "
            "installed |",
            "in the model's folder only what was changed; the base minilm must be installed",
        ),
        (
            taught(),
            "this folder holds vectors of its tokens, taught by a larger model, and no network |",
            "vectors of tokens in the model's folder, no network",
        ),
        (whole, "its weights below the cut are in this folder |", "where its weights arein the model's folder"),
        (shared, "none of its weights are in this folder |", "shared, outside the model's folder"),
    ):
        assert on_card in card(facts)
        assert on_page in check(render(facts)).text
    assert "what it isminilm, its last 2 of 6 blocks retrained" in check(render(tuned())).text
    assert "its final blocks were retrained with the head" in check(render(tuned())).text
    assert "a table of vectors that turns each text into numbers; no network is run" in check(render(taught())).text
    assert "it stays as it is" in check(render(whole)).text
    facts = tuned()
    facts["backbone"] |= {"said": "a|b\n<i>", "name": "a|b"}
    assert "a\\|b \\<i\\>: only" in card(facts)


def lines(facts: dict[str, Any]) -> list[str]:
    facts["head"].setdefault("tie", None)
    facts["data"].setdefault("faults", [])
    return verdict.sentences(facts)


def test_the_verdict_on_a_tuned_model():
    assert lines(tuned()).count(
        "Tuning the last 2 of 6 blocks gained 4.1 points on folds (give or take 1.2) over the head alone."
    ) == 1  # fmt: skip
    assert not [line for line in lines(tuned()) if "Its base is" in line]
    assert "Tuning was tried and did not beat the head alone." in lines(untouched())
    nothing = untouched()
    nothing["tuning"]["rungs"] = nothing["tuning"]["rungs"][:1]
    assert [line for line in lines(nothing) if "it would not have been finished in time" in line]
    whole = tuned(rungs=[rung("linear", 0, 0.8), rung("all", 6, 0.85, kept=True)])
    assert [line for line in lines(whole) if line.startswith("Tuning all 6 blocks gained 5.0 points")]
    last = tuned(rungs=[rung("linear", 0, 0.8), rung("blocks:1", 1, 0.85, kept=True)])
    assert [line for line in lines(last) if line.startswith("Tuning the last of 6 blocks gained 5.0 points")]
    number = example_facts.regression() | {"tuning": tuned()["tuning"], "advice": None}
    assert (
        "Tuning the last 2 of 6 blocks gained 0.041 of R² on folds (give or take 0.012) over the head alone."
        in lines(number)
    )


def test_the_verdict_on_a_student():
    assert "A student of tickets: gives 96 % of its answers at 300 times its speed." in lines(taught())
    assert "A student of tickets: gives 96 % of its answers at about its speed." in lines(taught(quicker=0.9))
    number = example_facts.regression() | {"distilled": taught()["distilled"]}
    assert [line for line in lines(number) if "gives numbers that correlate with its by 0.958 at 300" in line]
    blocks = taught("blocks:2")
    blocks["backbone"]["said"] = "minilm, its last 2 of 2 blocks retrained"
    assert not [line for line in lines(blocks) if "Its base is" in line]


def test_the_verdict_on_another_base_and_the_advice():
    facts = tuned()
    del facts["tuning"]
    said = "Its base is minilm, its last 2 of 6 blocks retrained; what was retrained is in the model's folder."
    assert lines(facts).count(said) == 1
    assert lines(facts | {"advice": "Tune it."}).count("Tune it.") == 1
    old = example_facts.with_test()
    assert not [line for line in lines(old) if re.search("uning|tudent|Its base", line)]


def rows(n: int = 60) -> dataset.Dataset:
    return dataset.read([(f"word {i} {i % 7}", "ab"[i % 2]) for i in range(n)])


def learned(train: dataset.Dataset, **more: Any) -> proof.Learned:
    scores = np.random.default_rng(0).normal(size=(len(train), 2)).astype(np.float32)
    return proof.Learned(**{
        "task": "classification", "labels": train.labels, "head": None, "choice": {}, "calibration": None, "unknown": None,
        "thresholds": None, "facts": {}, "scores": scores, **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("base", "advised"),
    [("minilm", True), ("minilm int8", True), ("words", False), ("fake", False), ("colours", False)],
)
def test_a_base_with_blocks_is_advised_on(base: str, advised: bool):
    name, _, precision = base.partition(" ")
    under = backbones.load(name, precision=precision or "float32")
    train = rows()
    X = np.random.default_rng(1).normal(size=(len(train), 8)).astype(np.float32)
    found = learning._advised("tickets", train, X, learned(train), under, 0)
    assert (found is not None) is advised
    if found is not None:
        assert found.endswith("headstart tune tickets")
    assert learning._advised("tickets", train, X, learned(train, scores=None), under, 0) is None


def test_nothing_is_looked_for_without_blocks(monkeypatch):
    monkeypatch.setattr(advice, "worth", lambda *given, **more: pytest.fail("a search for nothing"))
    train = rows()
    X = np.zeros((len(train), 8), np.float32)
    assert learning._advised("m", train, X, learned(train), backbones.load("words"), 0) is None


def test_no_more_rows_are_looked_at_than_need_be(monkeypatch):
    seen = []
    monkeypatch.setattr(learning, "LOOKED", 20)
    monkeypatch.setattr(advice, "worth", lambda X, y, scores, **more: seen.append((X, y, scores, more)))
    train = rows()
    given_ = learned(train)
    X = np.arange(120, dtype=np.float32).reshape(60, 2)
    learning._advised("m", train, X, given_, backbones.load("minilm"), 0)
    [(X_, y, scores, more)] = seen
    assert len(X_) == len(y) == len(scores) == 20
    some = (X_[:, 0] / 2).astype(int)
    assert (train.y[some] == y).all()
    assert (given_.scores[some] == scores).all()
    assert more == {"name": "m", "modality": "text", "groups": None, "seed": 0}


def test_fit_puts_the_advice_where_it_is_read(tmp_path, monkeypatch):
    asked = []

    def advised(name: str, *rest: Any) -> str:
        asked.append(name)
        return f"Tune {name}."

    monkeypatch.setattr(learning, "_advised", advised)
    texts = [(f"word {i} {'good' if i % 2 else 'bad'}", "ab"[i % 2]) for i in range(40)]
    model = fit(texts, name="m", backbone="fake", project=tmp_path)
    facts = api.facts(model)
    assert facts["advice"] == "Tune m."
    assert facts["verdict"].count("Tune m.") == 1
    assert api.summary(model, facts)["advice"] == "Tune m."
    assert api.summary(model, {k: v for k, v in facts.items() if k != "advice"})["advice"] is None
    fit(texts, name="bare", backbone="fake", project=tmp_path, keep_examples=False)  # it could not be tuned by its name
    assert asked == ["m"]


def test_the_scores_come_from_the_folds(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(learning, "_advised", lambda name, train, X, learned, base, seed: found.append(learned.scores))
    fit(
        [(f"{'good' if i % 2 else 'bad'} {i}", "ab"[i % 2]) for i in range(40)],
        name="m",
        backbone="fake",
        project=tmp_path,
    )
    assert found[0].shape == (40, 2)
    assert np.isfinite(found[0]).all()
