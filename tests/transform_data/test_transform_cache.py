"""The analysis cache: what is found again, what is not, and never half an entry."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from components.transform_data.cache import AnalysisCache
from tests.transform_data.datasets import Project

TYPES = {"amount": "FLOAT", "color": "BYTES", "y": "INT"}
FEATURES = {"numeric": [{"columns": ["amount"]}], "categorical": [{"columns": ["color"]}]}
TRAIN = {"amount": [1.0, 2.0, 3.0, 6.0], "color": ["red", "red", "blue", None], "y": [0, 1, 0, 1]}
EVAL = {"amount": [3.0, None], "color": ["blue", "green"], "y": [0, 1]}
REUSED = "analysis reused"


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path).write(TYPES, train=TRAIN, eval=EVAL)


def test_analysis_is_reused_while_train_and_features_are_the_same(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(project.folder / "cache")
    first = project.transform(FEATURES, analysis_cache=cache)
    assert REUSED not in capsys.readouterr().out
    second = project.transform(FEATURES, analysis_cache=cache, name="second")
    assert REUSED in capsys.readouterr().out
    assert _content(second.graph) == _content(first.graph)
    assert _content(second.transformed) == _content(first.transformed)

    project.write(TYPES, train=TRAIN, eval={"amount": [0.0], "color": ["red"], "y": [1]})
    other_eval = project.transform(FEATURES, analysis_cache=cache, name="eval")
    assert REUSED in capsys.readouterr().out
    assert other_eval.table("eval").num_rows == 1

    project.write(TYPES, train={**TRAIN, "amount": [1.0, 2.0, 3.0, 7.0]}, eval=EVAL)
    other_train = project.transform(FEATURES, analysis_cache=cache, name="train")
    assert REUSED not in capsys.readouterr().out
    assert other_train.table() != first.table()


def _truncate(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:1000])


def _flip_a_byte(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[2000] ^= 0xFF
    entry.write_bytes(bytes(content))


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    (folder / "transform_fn" / "assets").mkdir(parents=True)
    (folder / "features.json").write_text("{}")
    (folder / "transform_fn" / "saved_model.pb").write_bytes(random.Random(1).randbytes(10_000))
    (folder / "transform_fn" / "assets" / "vocabulary 0").write_bytes(b"red\n")
    return folder


@pytest.mark.parametrize("place", ["local", "gcs_bucket", "s3_bucket"])
def test_entry_comes_back_as_it_was(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri = str(tmp_path / "cache") if place == "local" else f"{request.getfixturevalue(place)}/some/cache/"
    folder = _folder(tmp_path)
    cache = AnalysisCache(uri)
    target = tmp_path / "target"
    target.mkdir()
    assert not cache.fetch("key", target)
    cache.keep("key", folder)
    cache.keep("key", folder)
    assert not cache.fetch("other", target)
    assert cache.fetch("key", target)
    assert _content(target) == _content(folder)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_byte])
def test_damaged_entry_is_not_trusted(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = _folder(tmp_path), tmp_path / "target"
    cache = AnalysisCache(str(tmp_path / "cache"))
    cache.keep("key", folder)
    (entry,) = (tmp_path / "cache").iterdir()
    damage(entry)
    assert not cache.fetch("key", target)
    assert f"'{entry}' is damaged and will be replaced" in capsys.readouterr().out
    cache.keep("key", folder)
    assert cache.fetch("key", target)
    assert _content(target) == _content(folder)


def test_interrupted_writer_leaves_no_entry(tmp_path: Path) -> None:
    folder, target = _folder(tmp_path), tmp_path / "target"
    cache = AnalysisCache(str(tmp_path / "cache"))
    cache.keep("key", folder)
    (entry,) = (tmp_path / "cache").iterdir()
    entry.rename(entry.with_name(".key.0123"))  # where a writer that is killed leaves it
    assert not cache.fetch("key", target)
    cache.keep("key", folder)
    assert cache.fetch("key", target)
    assert _content(target) == _content(folder)


def test_no_cache_keeps_nothing(tmp_path: Path) -> None:
    cache = AnalysisCache("")
    cache.keep("key", _folder(tmp_path))
    assert not cache.fetch("key", tmp_path)
