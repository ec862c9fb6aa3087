"""Predictions in buckets and tables. Needs: the venv twin of the tensorflow image; storage servers, PostgreSQL."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import adbc_driver_sqlite.dbapi as sqlite
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import InputError, UnavailableError
from components.settings import BatchOutput
from components.write_predictions.buckets import BucketTarget
from components.write_predictions.tables import TableTarget
from tests.write_predictions import postgres
from tests.write_predictions.made import rows_of, settings, write_dataset, written


@pytest.fixture(params=["gcs_bucket", "s3_bucket"])
def bucket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        programs = postgres.programs()
    except postgres.MissingError as error:
        pytest.skip(f"no PostgreSQL: {error}")
    with postgres.running(programs) as url:
        yield url


def objects(bucket: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(bucket, use_listings_cache=False)
    return sorted(name.removeprefix(f"{path}/") for name in fs.find(path))


def ids_in(bucket: str, span: str) -> list[str]:
    """Reads a span as its log says."""
    record = BucketTarget(bucket, "shop", BatchOutput()).record(span)
    assert record
    fs, path = fsspec.core.url_to_fs(f"{bucket}/shop/span={span}", use_listings_cache=False)
    tables = []
    for name in record.files:
        with fs.open(f"{path}/{name}") as file:
            tables.append(pq.ParquetFile(file).read(["id"]))
    return list(pa.concat_tables(tables)["id"].to_pylist())


# ------------------------------------------------------------------------------------------------ buckets


def test_a_rerun_in_a_bucket_overwrites_its_own_span(bucket: str, tmp_path: Path) -> None:
    for seed, span in ((0, "2013-11"), (1, "2013-12"), (2, "2013-12")):
        rows = write_dataset(tmp_path / f"{seed}", {span: 30}, seed=seed)
        result = written(tmp_path / f"{seed}", settings(bucket, output={"partition_by": "city"}))
        assert result.uri == f"{bucket}/shop/span={span}"
    assert sorted(ids_in(bucket, "2013-12")) == sorted(rows["id"].to_pylist())
    attempts = {name.split("/")[2] for name in objects(bucket) if "span=2013-12/attempt=" in name}
    assert len(attempts) == 1, "the attempt before is removed"
    assert len(ids_in(bucket, "2013-11")) == 30
    assert "shop/span=2013-12/_SUCCESS" in objects(bucket)
    assert sorted(BucketTarget(bucket, "shop", BatchOutput()).spans()) == ["2013-11", "2013-12"]


def test_concurrent_runs_in_a_bucket_leave_one_of_them(bucket: str, tmp_path: Path) -> None:
    rows = [write_dataset(tmp_path / f"in{seed}", {"7": 100}, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: written(tmp_path / f"in{seed}", settings(bucket)), range(4)))
    assert ids_in(bucket, "7") in [table["id"].to_pylist() for table in rows]
    written(tmp_path / "in0", settings(bucket))
    assert len({name.split("/")[2] for name in objects(bucket) if "/attempt=" in name}) == 1


WRITER = """
import sys
from pathlib import Path
from tests.write_predictions.made import settings, written
while True:
    written(Path(sys.argv[1]), settings(sys.argv[2]))
    print("written", flush=True)
"""


def killed_after(seconds: float, source: Path, target: str, **environment: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, source, target], stdout=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stdout
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_run_leaves_the_span_of_a_bucket_whole(s3_bucket: str, tmp_path: Path) -> None:
    rows = {seed: write_dataset(tmp_path / f"in{seed}", {"7": 5_000}, seed=seed) for seed in (1, 2)}
    written(tmp_path / "in1", settings(s3_bucket))
    for attempt in range(3):
        killed_after(0.05 * attempt, tmp_path / f"in{1 + attempt % 2}", s3_bucket)
        assert ids_in(s3_bucket, "7") in [table["id"].to_pylist() for table in rows.values()]


def test_what_killed_runs_left_in_a_bucket_is_removed_once_it_is_old(s3_bucket: str, tmp_path: Path) -> None:
    fs, path = fsspec.core.url_to_fs(s3_bucket, use_listings_cache=False)
    old = datetime.now(UTC) - timedelta(days=3)
    for at in (old, datetime.now(UTC)):
        fs.pipe_file(f"{path}/shop/span=7/attempt={at:%Y%m%dT%H%M%SZ}-00000000/part-00000.parquet", b"half")
    write_dataset(tmp_path / "in", {"7": 10})
    written(tmp_path / "in", settings(s3_bucket))
    attempts = {name.split("/")[2] for name in objects(s3_bucket) if "/attempt=" in name}
    assert len(attempts) == 2
    assert not any(name.startswith(f"attempt={old:%Y%m%d}") for name in attempts)


def test_a_bucket_that_is_not_there(s3_url: str, tmp_path: Path) -> None:
    del s3_url
    write_dataset(tmp_path / "in", {"7": 10})
    with pytest.raises((InputError, UnavailableError), match="nowhere"):
        written(tmp_path / "in", settings("s3://nowhere-at-all/x"))


# ------------------------------------------------------------------------------------------------- tables


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    if url.startswith("sqlite:"):
        connected = sqlite.connect(url.removeprefix("sqlite://"))
    else:
        import adbc_driver_postgresql.dbapi as postgresql

        connected = postgresql.connect(url)
    with connected as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'scores.db'}"
    return postgres.new_database(str(request.getfixturevalue("server")))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_span_in_a_table_holds_what_was_predicted(database: str, tmp_path: Path, kind: str) -> None:
    rows = write_dataset(tmp_path / "in", {"2013-11": 20, "2013-12": 30}, kind=kind, top=0)
    result = written(tmp_path / "in", settings(database, output={"table": "scores"}), kind)
    assert result.uri == f"{database}#scores"
    column = {"binary": "probability", "multiclass": "class", "regression": "value"}[kind]
    found = query(database, f'SELECT span, id, city, "{column}" FROM scores ORDER BY span, id')
    wanted = [
        ("2013-11" if index < 20 else "2013-12", row["id"], row["city"], row[column])
        for index, row in enumerate(rows.to_pylist())
    ]
    assert [one[:3] for one in found] == [one[:3] for one in sorted(wanted, key=lambda one: one[:2])]
    values = {one[1]: one[3] for one in found}
    if kind == "multiclass":
        assert values == {one[1]: one[3] for one in wanted}
        (text,) = query(database, "SELECT probabilities FROM scores LIMIT 1")[0]
        assert len(json.loads(str(text))) == 3
    else:
        assert values == pytest.approx({one[1]: one[3] for one in wanted}, rel=1e-6)


def test_a_rerun_overwrites_its_own_span_of_a_table(database: str, tmp_path: Path) -> None:
    for seed, span, count in ((0, "6", 10), (1, "7", 20), (2, "7", 5)):
        write_dataset(tmp_path / f"{seed}", {span: count}, seed=seed, top=0)
        written(tmp_path / f"{seed}", settings(database))
    counts = query(database, "SELECT span, COUNT(*) FROM shop_predictions GROUP BY span ORDER BY span")
    assert counts == [("6", 10), ("7", 5)]
    target = TableTarget(database, "shop", BatchOutput(target=database))
    assert sorted(target.spans()) == ["6", "7"]
    record = target.record("7")
    assert record
    assert (record.rows, record.digest) == (5, "2")


def test_a_fault_while_inserting_leaves_the_span_as_it_was(database: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 10})
    written(tmp_path / "in", settings(database))
    target = TableTarget(database, "shop", BatchOutput(target=database))
    record = target.record("7")
    assert record
    schema = written_schema(tmp_path / "in", database)

    def breaks() -> Iterator[pa.Table]:
        yield schema.empty_table()
        raise InputError("the source broke")

    with pytest.raises(Exception, match=r"broke|ArrowArrayStream"):
        target.replace(record, breaks(), schema)
    assert query(database, "SELECT COUNT(*) FROM shop_predictions") == [(10,)]


def written_schema(dataset: Path, database: str) -> pa.Schema:
    from components.artifacts import read_manifest
    from components.write_predictions.rows import Predictions, Stamp

    stamp = Stamp(datetime.now(UTC), "shop", "v0007")
    return Predictions(dataset, read_manifest(dataset), settings(database), stamp).schema


def test_concurrent_runs_on_one_span_of_a_table_leave_one_of_them(database: str, tmp_path: Path) -> None:
    for seed in range(4):
        write_dataset(tmp_path / f"in{seed}", {"7": 500}, seed=seed)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: written(tmp_path / f"in{seed}", settings(database)), range(4)))
    ids = [str(name) for (name,) in query(database, "SELECT id FROM shop_predictions")]
    assert len(ids) == 500
    assert len({name.split("-")[1] for name in ids}) == 1


def test_a_killed_run_leaves_the_span_of_a_table_whole(database: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_dataset(tmp_path / f"in{seed}", {"7": 20_000}, seed=seed)
    written(tmp_path / "in1", settings(database))
    for attempt in range(4):
        killed_after(0.07 * attempt, tmp_path / f"in{1 + attempt % 2}", database)
        ids = [str(name) for (name,) in query(database, "SELECT id FROM shop_predictions")]
        assert len(ids) == 20_000
        assert len({name.split("-")[1] for name in ids}) == 1


def test_a_table_with_other_columns_is_refused(database: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", {"7": 10})
    written(tmp_path / "a", settings(database))
    write_dataset(tmp_path / "b", {"7": 10}, table=rows_of("binary", 10).append_column("new", pa.array([1] * 10)))
    with pytest.raises(InputError, match="'shop_predictions' has other columns than the predictions: it lacks new"):
        written(tmp_path / "b", settings(database))
    assert query(database, "SELECT COUNT(*) FROM shop_predictions") == [(10,)]


def test_hostile_column_names_reach_a_table(database: str, tmp_path: Path) -> None:
    name = 'x"; DROP TABLE shop_predictions; --'
    table = rows_of("binary", 10).append_column(name, pa.array(["'); DROP"] * 10))
    for again in ("a", "b"):
        write_dataset(tmp_path / again, {"7'); --": 10}, table=table)
        written(tmp_path / again, settings(database))
    assert query(database, "SELECT COUNT(*) FROM shop_predictions") == [(10,)]


def test_a_table_in_a_schema(server: str, tmp_path: Path) -> None:
    url = postgres.new_database(server)
    write_dataset(tmp_path / "in", {"7": 10})
    with pytest.raises(InputError, match="risk"):
        written(tmp_path / "in", settings(url, output={"table": "risk.scores"}))
    postgres.execute(url, "CREATE SCHEMA risk")
    for _ in range(2):
        written(tmp_path / "in", settings(url, output={"table": "risk.scores"}))
    assert query(url, "SELECT COUNT(*) FROM risk.scores") == [(10,)]


def test_a_database_that_refuses_or_does_not_answer(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "in", {"7": 10})
    with pytest.raises(UnavailableError, match="check that the database is reachable"):
        written(tmp_path / "in", settings("postgresql://127.0.0.1:1/x"))
    with pytest.raises(InputError, match="does not exist"):
        written(tmp_path / "in", settings(f"{server.rpartition('/')[0]}/nothing"))
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(InputError, match=r"password.*check batch.output, and PGUSER and PGPASSWORD"):
        written(tmp_path / "in", settings(server))
    with pytest.raises(InputError, match="failed to open"):
        written(tmp_path / "in", settings("sqlite:///proc/nowhere/x.db"))
