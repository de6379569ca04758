import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import InputError, NotFound, StorageError
from headstart.project import Project, checked_name, name_from


def writer(text):
    return lambda folder: (folder / "x").write_text(text)


def test_commit_makes_versions_and_moves_the_pointer(tmp_path):
    project = Project(tmp_path)
    assert project.names() == []
    first = project.commit("a", writer("1"))
    second = project.commit("a", writer("2"))
    assert (first.name, second.name) == ("v1", "v2")
    assert project.current("a") == second
    assert project.versions("a") == [1, 2]
    assert (first / "x").read_text() == "1"


def test_a_failed_commit_leaves_nothing(tmp_path):
    project = Project(tmp_path)

    def fail(folder):
        (folder / "x").write_text("half")
        raise StorageError("disk full")

    with pytest.raises(StorageError, match="disk full"):
        project.commit("a", fail)
    assert list(tmp_path.iterdir()) == []
    project.commit("a", writer("1"))
    with pytest.raises(StorageError):
        project.commit("a", fail)
    assert project.current("a").name == "v1"
    assert sorted(p.name for p in (tmp_path / "models" / "a").iterdir()) == ["current", "v1"]


def test_a_missing_model_offers_near_names(tmp_path):
    project = Project(tmp_path)
    project.commit("tickets", writer("1"))
    with pytest.raises(NotFound, match="'tickets'"):
        project.current("tickts")
    with pytest.raises(NotFound):
        project.remove("tickts")
    assert project.remove("tickets") == [1]
    assert project.names() == []


def test_a_damaged_pointer_is_refused(tmp_path):
    project = Project(tmp_path)
    project.commit("a", writer("1"))
    (tmp_path / "models" / "a" / "current").write_text("../../etc")
    with pytest.raises(NotFound, match="not a version"):
        project.current("a")


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a\\b", ".hidden", "con", "NUL.txt", "a" * 65, "é", "a\n", "x.", "-x"]
)
def test_bad_names_are_refused(name):
    with pytest.raises(InputError):
        checked_name(name)


@given(st.text(max_size=80))
def test_a_name_made_from_any_file_name_is_good(text):
    assert checked_name(name_from(text))


def test_two_processes_get_two_versions(tmp_path):
    script = (
        "import sys, pathlib; from headstart.project import Project\n"
        "for i in range(20): Project(pathlib.Path(sys.argv[1])).commit('a', lambda f: (f / 'x').write_text('y'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [p.wait(60) for p in running] == [0, 0, 0]
    project = Project(tmp_path)
    assert project.versions("a") == list(range(1, 61))
    assert (project.current("a") / "x").read_text() == "y"
