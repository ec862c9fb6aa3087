"""Defective inputs: each gets its error class and one line, and leaves nothing half-written."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import MANIFEST, MODEL_SPEC, MODEL_VERSION
from components.errors import DataRejectedError, InputError, UnavailableError
from components.predict_batch.prediction import predict
from tests.train_model.projects import project, trained


@dataclass
class Given:
    """What predict takes; a defect changes it."""

    examples: Path
    model: Path
    model_uri: str = ""
    split: str = "eval"
    keep: tuple[str, ...] = ("id",)

    @property
    def part(self) -> Path:
        return self.examples / "eval" / "part-00001.parquet"

    @property
    def saved_model(self) -> Path:
        return self.model / MODEL_VERSION / "saved_model.pb"


@dataclass(frozen=True)
class Defect:
    name: str
    error: type[Exception]
    says: str
    make: Callable[[Given], object]


def rewrite(change: Callable[[pa.Table], pa.Table], every: bool = False) -> Callable[[Given], None]:
    def make(given: Given) -> None:
        for part in sorted(given.part.parent.iterdir()) if every else [given.part]:
            pq.write_table(change(pq.ParquetFile(part).read()), part)

    return make


def lists(table: pa.Table) -> pa.Table:
    values = pa.array([[1.0]] * table.num_rows)
    return table.set_column(table.column_names.index("amount"), "amount", values)


def keep_a_column_named_like_an_output(given: Given) -> None:
    given.keep = ("id", "probability")
    rewrite(lambda table: table.append_column("probability", table["amount"]), every=True)(given)


def truncate(path: Path, count: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:300] = bytes(296)
    path.write_bytes(content)


DEFECTS = [
    Defect("no dataset", InputError, f"has no {MANIFEST}", lambda g: (g.examples / MANIFEST).unlink()),
    Defect("no split", InputError, "no split 'test' (it has: eval, train)", lambda g: setattr(g, "split", "test")),
    Defect("kept column", InputError, "did you mean 'colour'?", lambda g: setattr(g, "keep", ("color",))),
    Defect("kept column, no hint", InputError, "it has: id, amount", lambda g: setattr(g, "keep", ("zzz",))),
    Defect("column like an output", InputError, "'probability' has the name of a", keep_a_column_named_like_an_output),
    Defect(
        "no model column",
        DataRejectedError,
        "1 columns that the model takes are not in the rows (allowed: 0): visits",
        rewrite(lambda table: table.drop_columns(["visits"]), every=True),
    ),
    Defect(
        "no model column in one part",
        DataRejectedError,
        "(allowed: 0): colour",
        rewrite(lambda table: table.drop_columns(["colour"])),
    ),
    Defect(
        "no kept column in one part", InputError, "no column 'id'", rewrite(lambda table: table.drop_columns(["id"]))
    ),
    Defect("lists", InputError, "'amount' cannot be read as float", rewrite(lists)),
    Defect("truncated Parquet", InputError, "part-00001.parquet' cannot be read", lambda g: truncate(g.part)),
    Defect("damaged Parquet", InputError, "part-00001.parquet' cannot be read", lambda g: overwrite(g.part)),
    Defect("text as Parquet", InputError, "cannot be read as Parquet", lambda g: g.part.write_text("id,amount\n1,2\n")),
    Defect("no model folder", InputError, "is no directory", lambda g: shutil.rmtree(g.model)),
    Defect("empty model folder", InputError, f"has no {MODEL_SPEC}", lambda g: (g.model / MODEL_SPEC).unlink()),
    Defect("spec is no JSON", InputError, "spec.json' is damaged", lambda g: (g.model / MODEL_SPEC).write_text("{")),
    Defect(
        "spec of something else",
        InputError,
        "spec.json' is damaged",
        lambda g: (g.model / MODEL_SPEC).write_text('{"a": 1}'),
    ),
    Defect("no SavedModel", InputError, "/1' cannot be loaded", lambda g: shutil.rmtree(g.model / MODEL_VERSION)),
    Defect("truncated SavedModel", InputError, "/1' cannot be loaded", lambda g: truncate(g.saved_model, 1000)),
    Defect(
        "no variables", InputError, "/1' cannot be loaded", lambda g: shutil.rmtree(g.saved_model.parent / "variables")
    ),
    Defect(
        "no vocabulary", InputError, "/1' cannot be loaded", lambda g: shutil.rmtree(g.saved_model.parent / "assets")
    ),
    Defect("unknown scheme", InputError, "unknown scheme 'ftp'", lambda g: setattr(g, "model_uri", "ftp://host/model")),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_refused_in_one_line(defect: Defect, tmp_path: Path) -> None:
    given = Given(tmp_path / "examples", tmp_path / "model")
    shutil.copytree(project("binary").examples, given.examples)
    shutil.copytree(trained("binary"), given.model)
    defect.make(given)

    (tmp_path / "output").mkdir()
    with pytest.raises((InputError, DataRejectedError, UnavailableError)) as caught:
        predict(
            str(given.examples),
            given.model_uri or str(given.model),
            given.split,
            list(given.keep),
            str(tmp_path / "output" / "predictions"),
        )
    assert type(caught.value) is defect.error
    assert defect.says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "output").iterdir())


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_a_version_that_is_not_in_the_bucket(bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri = f"{request.getfixturevalue(bucket)}/models/none/versions/v0009"
    with pytest.raises(InputError, match="does not exist"):
        predict(str(project("binary").examples), uri, "eval", [], str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_the_table_is_whole() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 15
