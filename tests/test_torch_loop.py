"""The training loop: what a batch holds, the same weights from the same seed, and from an interruption on."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from headstart import backbones, states  # noqa: E402
from headstart.backbones import minilm  # noqa: E402
from headstart.errors import InputError, ModelError  # noqa: E402
from headstart.halved import halved  # noqa: E402
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION  # noqa: E402
from headstart.training import above, loop  # noqa: E402
from headstart.training.loop import Interrupted, Recipe, Task, batches, train  # noqa: E402
from small_graphs import WORDS  # noqa: E402
from test_halved import made  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)
QUICK = Recipe(epochs=3, rate=1e-3, batch=8)
NONE = np.zeros(0, np.int64)
TAPS = {"pre": "1", "post": "0", "turned": "0", "masked": "0", "convolutions": "0", "patches": "1"}


def rows_of(kind: str, n: int):
    """n contents, and what they are."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    if kind in ("convolutions", "patches"):
        from small_graphs import picture

        return [picture(i, (32, 32)) for i in range(n)], y
    firsts = np.array(["apple", "iron", "crow"])[y]
    return [" ".join([first, *rng.choice(WORDS[11:], rng.integers(0, 9))]) for first in firsts], y


class Stage:
    """A network in two halves, the states of some rows, and a head to start from."""

    def __init__(self, folder: Path, kind: str = "pre", n: int = 44) -> None:
        base, _ = made(kind, folder / "net") if not (folder / "net").exists() else (None, None)
        if base is None:
            from headstart.backbones.network import Network

            base = Network.open(folder / "net")
        self.base, self.kind = base, kind
        self.contents, self.y = rows_of(kind, n)
        self.halves = halved(base, TAPS[kind])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(states, "agrees", lambda *given: False)  # kept in float32
            self.states = states.collect(self.contents, self.halves, folder=folder / "cache")
        self.T = np.eye(3, dtype=np.float32)[self.y]
        d = base.card.width
        self.start = (
            np.random.default_rng(1).normal(size=(d, 3)).astype(np.float32),
            np.array([0.1, 0, -0.1], np.float32),
        )
        self.rows, self.held = np.arange(0, n - 12), np.arange(n - 12, n)

    def task(self, kind: str = CLASSIFICATION, T=None) -> Task:
        return Task(self.states, self.T if T is None else T, np.ones(len(self.y), np.float32), kind)

    def train(self, recipe: Recipe = QUICK, *, rows=None, held=None, start=None, task=None, seed: int = 5, **options):
        return train(
            self.halves, task or self.task(), self.rows if rows is None else rows,
            self.held if held is None else held, start or self.start, recipe, seed=seed, **options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module", params=["post", "turned", "masked", "convolutions", "patches"])
def other(request, tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("stage"), request.param, 20)


def parts(found) -> dict[str, object]:
    """All that a training gives, to the last bit."""
    W, b = found.above.head()
    arrays = {**found.above.weights(), "W": W, "b": b, "scores": found.scores}
    sums = {
        name: None if one is None else hashlib.sha256(one.tobytes()).hexdigest()[:8] for name, one in arrays.items()
    }
    return {**sums, "history": repr(found.history), "epochs": found.epochs}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=90), st.integers(1, 33), st.integers(300, 900), st.booleans(),
    st.integers(0, 5),
)  # fmt: skip
def test_every_row_once_and_no_batch_too_large(lengths, size, places, padded, seed):
    lengths = np.array(lengths)
    rows = np.random.default_rng(seed).permutation(len(lengths))[: 1 + len(lengths) * 2 // 3]
    found = batches(lengths, rows, size, (seed, 0), places, padded=padded)
    assert sorted(np.concatenate(found).tolist()) == sorted(rows.tolist())
    for batch in found:
        assert 1 <= len(batch) <= size
        assert len(batch) * lengths[batch].max() <= places
        assert padded or len(set(lengths[batch])) == 1


def test_batches_are_those_of_the_seed_and_the_epoch():
    lengths, rows = np.random.default_rng(0).integers(1, 40, 200), np.arange(200)
    one, same, another, other_seed = (batches(lengths, rows, 8, seed) for seed in ((3, 0), (3, 0), (3, 1), (4, 0)))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in same]
    assert [batch.tolist() for batch in one] != [batch.tolist() for batch in another]
    assert [batch.tolist() for batch in one] != [batch.tolist() for batch in other_seed]
    padding = sum(len(batch) * lengths[batch].max() for batch in one) / lengths.sum()
    assert padding < 1.2  # at random it is some 1.7
    assert not batches(lengths, NONE, 8, (0,))


def test_rows_of_a_batch_do_not_change_one_another(stage, other):
    for one in (stage, other):
        model = above.Above(one.halves, *one.start, rank=None, dropout=0.3)
        together = loop.features(model, one.task(), np.arange(len(one.y)))
        single = loop.alone(model, one.halves.states(one.contents))
        np.testing.assert_allclose(together, single, atol=1e-5)
        np.testing.assert_allclose(together, one.base.encode(one.contents), atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        some = np.array([5, 2, 2, 9])
        np.testing.assert_allclose(loop.features(model, one.task(), some), together[some], atol=1e-5)
        assert loop.features(model, one.task(), NONE).shape == (0, one.base.card.width)


def test_before_the_first_step_it_is_the_linear_model(stage, other):
    for one in (stage, other):
        W, b = one.start
        expected = one.base.encode(one.contents) @ W + b
        for recipe in (replace(QUICK, epochs=0), replace(QUICK, epochs=0, rank=2)):
            found = one.train(recipe, held=np.arange(len(one.y)))
            np.testing.assert_allclose(found.scores, expected, atol=1e-4)
            assert found.above.weights() == {}
            assert (found.epochs, found.history) == (0, ())


def test_the_loss_falls_and_held_out_rows_are_judged(stage):
    found = stage.train(replace(QUICK, epochs=6, rate=3e-3))
    losses = [epoch.loss for epoch in found.history]
    assert losses[-1] < 0.9 * losses[0]
    right = float((found.scores.argmax(1) == stage.y[stage.held]).mean())
    assert found.history[-1].right == pytest.approx(right)
    Z = torch.from_numpy(found.scores)
    expected = float(torch.nn.functional.cross_entropy(Z, torch.from_numpy(stage.y[stage.held])))
    assert found.history[-1].held == pytest.approx(expected, rel=1e-5)
    assert found.scores.shape == (12, 3)
    F = loop.features(found.above, stage.task(), stage.held)
    W, b = found.above.head()
    np.testing.assert_allclose(F @ W + b, found.scores, atol=1e-4)


def test_what_was_trained_on_is_learnt(stage):
    found = stage.train(replace(QUICK, epochs=30, rate=1e-2, head=0.1, dropout=0.0), held=stage.rows)
    before = stage.base.encode(stage.contents) @ stage.start[0] + stage.start[1]
    known = stage.y[stage.rows]
    assert (found.scores.argmax(1) == known).mean() > 0.9 > (before[stage.rows].argmax(1) == known).mean()


@pytest.mark.parametrize("rank", [None, 2])
def test_the_same_seed_gives_the_same_weights(stage, rank):
    recipe = replace(QUICK, rank=rank, views=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = parts(stage.train(recipe))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's own random numbers are left alone
    torch.manual_seed(2)
    assert parts(stage.train(recipe)) == one
    assert parts(stage.train(recipe, seed=6)) != one
    assert set(one) - {"W", "b", "scores", "history", "epochs"}
    assert not any(name.endswith("/up") for name in one) or rank == 2


def test_only_what_lies_above_the_tap_is_changed(stage):
    found = stage.train().above.weights()
    assert set(found) <= set(stage.halves.depth)
    assert len(found) > 10
    below = {tensor.name for tensor in stage.base.graph().graph.initializer} - set(stage.halves.depth)
    assert below
    assert not below & set(found)
    low = stage.train(replace(QUICK, rank=1)).above.weights()
    assert {name.rsplit("/", 1)[1] for name in low} == {"up", "down"}


def test_held_out_rows_are_not_trained_on(stage):
    T = stage.T.copy()
    T[stage.held] = np.roll(T[stage.held], 1, axis=1)
    one, two = (stage.train(task=stage.task(T=targets)) for targets in (stage.T, T))
    assert one.scores.tobytes() == two.scores.tobytes()
    assert one.history != two.history
    T[stage.rows[0]] = np.roll(T[stage.rows[0]], 1)
    assert stage.train(task=stage.task(T=T)).scores.tobytes() != one.scores.tobytes()


@pytest.mark.parametrize("kind", [MULTILABEL, REGRESSION])
def test_several_labels_and_numbers(stage, kind):
    if kind == MULTILABEL:
        T, start = np.stack([stage.y == 0, stage.y < 2, stage.y == 9], 1).astype(np.float32), stage.start
    else:
        T, start = (stage.y[:, None] - 1).astype(np.float32), (stage.start[0][:, :1], stage.start[1][:1])
    found = stage.train(replace(QUICK, epochs=8, rate=3e-3), task=stage.task(kind, T), start=start)
    assert found.history[-1].loss < 0.9 * found.history[0].loss
    expected = np.square(found.scores - T[stage.held]).mean() if kind == REGRESSION else found.history[-1].held
    assert found.history[-1].held == pytest.approx(expected, rel=1e-4)
    assert found.scores.shape == (12, T.shape[1])
    assert np.isfinite(found.scores).all()


def test_weights_of_rows_count(stage):
    """Rows of a wrong label that weigh nothing, also where a whole batch does, change nothing but the batches."""
    T, weight = stage.T.copy(), np.ones(len(stage.y), np.float32)
    T[:10], weight[:10] = np.roll(T[:10], 1, axis=1), 0
    task = Task(stage.states, T, weight, CLASSIFICATION)
    found = stage.train(replace(QUICK, batch=2), task=task)
    assert all(np.isfinite(value).all() for value in found.above.weights().values())
    assert np.isfinite(found.scores).all()
    again = Task(stage.states, np.where(weight[:, None] > 0, T, 1 / 3).astype(np.float32), weight, CLASSIFICATION)
    without = replace(QUICK, batch=2, contrast=0.0)
    assert stage.train(without, task=again).scores.tobytes() == stage.train(without, task=task).scores.tobytes()


def test_the_weights_of_the_chosen_epoch_are_kept(stage, monkeypatch):
    whole = stage.train(decide=True)
    assert whole.epochs in (1, 2, 3)
    seen = []
    monkeypatch.setattr(loop, "_chosen", lambda history, n: seen.append((len(history), n)) or 1)
    found = stage.train(decide=True)
    assert seen == [(3, 12)]
    assert found.epochs == 2
    assert len(found.history) == 3
    stopped = stage.train(until=2)  # the rates fall as if all epochs were to come
    assert found.scores.tobytes() == stopped.scores.tobytes()
    assert {**parts(found), "history": ""} == {**parts(stopped), "history": ""}
    np.testing.assert_allclose(found.history[1].right, (found.scores.argmax(1) == stage.y[stage.held]).mean())


def test_the_last_epoch_as_good_as_the_best_is_chosen():
    def chosen(*right, n=100):
        return loop._chosen([loop.Epoch(1.0, 1.0, one) for one in right], n)

    assert chosen(0.5, 0.9, 0.7) == 1
    assert chosen(0.9, 0.9, 0.89) == 2
    assert chosen(0.9, 0.89, 0.7) == 1
    assert chosen(0.9, 0.89, 0.7, n=100_000) == 0
    assert chosen(1.0, 1.0, 0.5) == 1
    assert chosen(-3.0, -2.0, -2.5) == 1


STEPS = 12  # of three epochs of 32 rows


@pytest.mark.parametrize(("decide", "rank"), [(False, None), (True, None), (True, 2)])
def test_interrupted_at_any_step_it_ends_the_same(stage, tmp_path, decide, rank):
    recipe, file, ticks = replace(QUICK, rank=rank), tmp_path / "part", []
    whole = parts(stage.train(recipe, decide=decide, tick=lambda done, total, loss: ticks.append((done, total))))
    assert ticks == [(i + 1, STEPS) for i in range(STEPS)]
    for at in range(1, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            stage.train(recipe, decide=decide, checkpoint=file, tick=stopping(at))
        assert file.exists()
        ticks.clear()
        again = stage.train(recipe, decide=decide, checkpoint=file, tick=lambda done, *_: ticks.append(done))
        assert ticks == list(range(at + 1, STEPS + 1))
        assert parts(again) == whole
        file.unlink()


def stopping(*at: int):
    def tick(done, total, loss):
        if done in at:
            raise KeyboardInterrupt

    return tick


def test_interrupted_time_and_again(stage, tmp_path):
    whole, file = parts(stage.train(decide=True)), tmp_path / "part"
    for at in range(1, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            stage.train(decide=True, checkpoint=file, tick=stopping(at))
    assert parts(stage.train(decide=True, checkpoint=file)) == whole


@pytest.mark.parametrize("where", ["forward", "clip", "optimiser", "judge", "chosen"])
@pytest.mark.parametrize("at", [1, 3])
def test_interrupted_anywhere_else_it_ends_the_same(stage, tmp_path, monkeypatch, where, at):
    """Ctrl-C comes when it likes: in the middle of a step, and while an epoch is judged."""
    whole, file, calls = parts(stage.train(decide=True)), tmp_path / "part", []

    def broken(function, after=False):
        def called(*args, **options):
            calls.append(1)
            if len(calls) == at and not after:
                raise KeyboardInterrupt
            found = function(*args, **options)
            if len(calls) == at:
                raise KeyboardInterrupt
            return found

        return called

    with monkeypatch.context() as patch:
        if where == "forward":
            patch.setattr(loop, "wrong", broken(loop.wrong, after=True))
        elif where == "clip":
            patch.setattr(torch.nn.utils, "clip_grad_norm_", broken(torch.nn.utils.clip_grad_norm_))
        elif where == "optimiser":
            patch.setattr(torch.optim.AdamW, "step", broken(torch.optim.AdamW.step, after=True))
        else:
            name = "_right" if where == "judge" else "_judging"
            patch.setattr(loop, name, broken(getattr(loop, name)))
        with pytest.raises(KeyboardInterrupt):
            stage.train(decide=True, checkpoint=file)
    assert parts(stage.train(decide=True, checkpoint=file)) == whole


def test_a_deadline_interrupts_and_can_be_gone_on_from(stage, tmp_path):
    whole, file = parts(stage.train()), tmp_path / "part"
    with pytest.raises(Interrupted):
        stage.train(deadline=time.monotonic() - 1)
    with pytest.raises(Interrupted):
        stage.train(deadline=time.monotonic() - 1, checkpoint=file)
    assert file.exists()
    late = time.monotonic() + 1000
    assert parts(stage.train(deadline=late, checkpoint=file)) == whole


def test_a_damaged_checkpoint_is_said(stage, tmp_path):
    file = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        stage.train(checkpoint=file, tick=stopping(4))
    whole = file.read_bytes()
    for content in (b"", whole[:-5], whole[:100]):
        file.write_bytes(content)
        with pytest.raises(ModelError, match="part"):
            stage.train(checkpoint=file)


def test_a_checkpoint_is_written_now_and_then(stage, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(loop._Run, "save", lambda self: saved.append(self.step))
    stage.train(checkpoint=tmp_path / "part")
    assert saved == []
    monkeypatch.setattr(loop, "SAVED", -1.0)
    stage.train(checkpoint=tmp_path / "part")
    assert saved == list(range(1, STEPS + 1))


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_torch_loop as here
from headstart.training import loop
loop.SAVED = -1.0
stage = here.Stage(Path({folder!r}))
def tick(done, total, loss):
    print(done, flush=True)
    if done == 7:
        time.sleep(60)
stage.train(decide=True, checkpoint=Path({folder!r}) / "part", tick=tick)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_it_goes_on_from_its_last_note(tmp_path):
    stage = Stage(tmp_path)
    script = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "7\n":
            break
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    ticks = []
    again = stage.train(decide=True, checkpoint=tmp_path / "part", tick=lambda done, *_: ticks.append(done))
    assert ticks == list(range(7, STEPS + 1))  # the seventh was told and not yet noted
    assert parts(again) == parts(stage.train(decide=True))


def test_one_row_and_no_rows(stage):
    one = stage.train(rows=np.array([3]), held=NONE)
    assert one.scores is None
    assert len(one.history) == 3
    assert one.history[0].held is None
    none = stage.train(rows=NONE)
    assert none.above.weights() == {}


def test_weights_can_be_given(stage):
    first = stage.train()
    again = stage.train(replace(QUICK, epochs=0), start=first.above.head(), given=first.above.weights())
    np.testing.assert_allclose(again.scores, first.scores, atol=1e-6)


def test_rates_fall_from_the_last_block_down(stage):
    model = above.Above(stage.halves, *stage.start, rank=None, dropout=0.0)
    groups = model.groups(1.0, 0.5, 7.0, 0.01)
    names = {id(p): name for name, some in model.graph.weights().items() for p in some}
    seen = {}
    for group in groups[:-1]:
        for p in group["params"]:
            seen[names[id(p)]] = group["lr"]
            assert group["weight_decay"] == (0.01 if p.ndim > 1 else 0.0)
    assert set(seen) == set(model.graph.weights())
    assert all(rate == 0.5 ** (stage.halves.blocks - stage.halves.depth[name]) for name, rate in seen.items())
    assert set(seen.values()) == {1.0, 0.5}
    assert (groups[-1]["lr"], groups[-1]["weight_decay"]) == (7.0, 0.0)
    assert re.fullmatch(r"w\d+", next(iter(seen)))


def test_the_built_in_network_before_the_first_step():
    """Texts of many lengths in one batch against the backbone that predicts, text by text."""
    base = backbones.load("minilm")
    try:
        minilm.weights()
    except InputError as error:
        pytest.skip(str(error))
    halves = halved(base, "4")
    texts = ["Where is my parcel?", "naïve café 東京", "the quick brown fox jumps " * 12, "a"]
    kept = states.collect(texts, halves)
    task = Task(kept, np.eye(4, dtype=np.float32), np.ones(4, np.float32), CLASSIFICATION)
    start = np.random.default_rng(0).normal(size=(base.card.width, 4)).astype(np.float32), np.zeros(4, np.float32)
    found = train(halves, task, np.arange(4), np.arange(4), start, replace(QUICK, epochs=0), seed=0)
    np.testing.assert_allclose(found.scores, base.encode(texts) @ start[0], atol=2e-2)  # states in half precision
    single = loop.alone(found.above, halves.states(texts))
    np.testing.assert_allclose(single, base.encode(texts), atol=1e-5)
