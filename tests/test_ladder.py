"""Times, rungs, and the forecast of what tuning brings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import ladder
from headstart.errors import InputError
from headstart.ladder import Signs, paying


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("10m", 600), (" 1.5 H ", 5400), ("2min", 120), (45.0, 45), ("0.5", 0.5)],
)
def test_times(text, value):
    assert ladder.seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "-3", "0", "0m", "10 days", "1e3", "nan", "inf", "10m30s", "1,5h", "9" * 40])
def test_what_is_no_time(text):
    with pytest.raises(InputError, match="10m"):
        ladder.seconds(text)


@given(st.floats(0.01, 1e6), st.sampled_from(["s", "m", "h", "min"]))
def test_times_scale_by_their_unit(number, unit):
    text = f"{number:.3f}"
    if float(text) * 3600 < 1e9 and float(text) > 0:
        assert ladder.seconds(text + unit) == pytest.approx(float(text) * {"s": 1, "m": 60, "min": 60, "h": 3600}[unit])


@given(st.integers(1, 60))
def test_rungs_rise_to_all(blocks):
    found = ladder.rungs(blocks)
    assert found == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == blocks
    assert ladder.named(found[-1], blocks) == "all"
    assert all(ladder.named(k, blocks) == f"blocks:{k}" for k in found[:-1])


def test_effort_grows_with_the_rows_and_the_part_that_is_trained():
    assert ladder.effort(0, 3.0, 0.5) == 0
    assert ladder.effort(200, 3.0, 0.5) == 2 * ladder.effort(100, 3.0, 0.5)
    assert ladder.effort(100, 3.0, 0.0) == pytest.approx(0.3)  # the pass below the cut alone
    assert ladder.effort(100, 3.0, 1.0) == pytest.approx(0.3 * 3 * 10 * 4)


def test_the_same_answer_to_everything():
    T = np.eye(3)[[0, 0, 1, 2]]
    assert ladder.majority(T, "classification").tolist() == [1, 1, 0, 0]
    number = np.array([[1.0], [3.0]])
    assert ladder.majority(number, "regression").tolist() == [-1, -1]  # so R² is 0
    several = np.array([[1, 0], [1, 1], [1, 0], [0, 0]])
    assert ladder.majority(several, "multilabel") == pytest.approx([1, 2 / 3, 1, 0])
    none = np.array([[0, 0], [1, 0], [0, 0]])
    assert ladder.majority(none, "multilabel").tolist() == [1, 0, 1]


SIGNS = st.builds(Signs, st.floats(-0.2, 1), st.one_of(st.none(), st.floats(-0.5, 0.5)), st.floats(0, 0.2))


@given(st.floats(0, 1), st.integers(1, 10_000), SIGNS)
def test_a_forecast_is_a_share_within_its_interval(accuracy, n, signs):
    gain, low, high, says = paying(accuracy, n=n, signs=signs)
    assert 0 <= low <= gain <= high <= 1
    assert gain <= 1 - accuracy + 1e-9
    assert says.endswith(".")


@given(st.floats(0, 0.99), st.floats(-0.1, 0.9), st.floats(0, 0.1))
def test_what_agrees_less_or_is_lost_more_gains_more(accuracy, lift, step):
    def gain(lift, lost):
        return paying(accuracy, n=300, signs=Signs(lift, lost))[0]

    assert gain(lift, 0.05) >= gain(lift + step, 0.05)
    assert gain(lift, 0.05) <= gain(lift, 0.05 + step)


# accuracy of the best frozen rung, rows, lift, lost, its noise; what tuning all blocks brought, 0 where it lost
MEASURED = {
    "77 intents": (0.845, 770, 0.65, -0.07, 0.012, 0.005),
    "spam": (0.958, 64, 0.65, 0.039, 0.049, 0.0),
    "diseases": (0.567, 80, 0.28, -0.041, 0.057, 0.0),
    "kinds of request": (0.904, 181, 0.57, -0.035, 0.024, 0.047),
    "plot or opinion": (0.839, 64, 0.43, 0.012, 0.046, 0.075),
    "mood, 32": (0.599, 64, -0.06, 0.047, 0.069, 0.077),
    "mood, 100": (0.703, 200, 0.11, -0.034, 0.034, 0.014),
    "first word": (0.922, 192, 0.27, 0.195, 0.031, 0.072),
    "negation": (0.703, 64, 0.05, 0.18, 0.069, 0.166),
    "I": (0.911, 64, 0.18, 0.273, 0.058, 0.0),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_forecast_holds_what_was_measured(name):
    accuracy, n, lift, lost, noise, brought = MEASURED[name]
    _, low, high, _ = paying(accuracy, n=n, signs=Signs(lift, lost, noise))
    assert low - 1e-9 <= brought <= high


def test_topics_are_promised_less_than_the_rest():
    gains = {
        name: paying(a, n=n, signs=Signs(lift, lost, noise))[0]
        for name, (a, n, lift, lost, noise, _) in MEASURED.items()
    }
    assert max(gains["77 intents"], gains["spam"]) < 0.01
    assert min(gain for name, gain in gains.items() if name not in ("77 intents", "spam")) > 0.01


def test_topics_and_other_things_are_told_apart():
    assert "not pay: neighbours share labels" in paying(0.9, n=500, signs=Signs(0.8, 0.0))[3]
    assert "not pay: little is wrong" in paying(0.99, n=500, signs=Signs(0.2, 0.0))[3]
    assert "lost on the way up" in paying(0.7, n=500, signs=Signs(0.1, 0.2, 0.02))[3]
    assert "not topics" in paying(0.7, n=500, signs=Signs(0.1, 0.0, 0.02))[3]
    assert "might pay" in paying(0.8, n=500, signs=Signs(0.6, 0.0, 0.02))[3]


def test_fit_speaks_of_tuning_only_where_it_would_pay():
    assert ladder.worth(0.93, n=500, signs=Signs(0.85), name="m") is None
    assert ladder.worth(0.64, n=20, signs=Signs(0.1), name="m") is None
    said = ladder.worth(0.64, n=64, signs=Signs(0.1), name="reviews")
    assert said.endswith("headstart tune reviews")
    assert "would probably help" in said
