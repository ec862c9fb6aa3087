import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from components import spans
from components.errors import DataRejectedError, InputError
from components.settings import Data

MONTHLY = "data/flights-{YYYY}-{MM}.csv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for month in range(1, 10):
        touch(f"data/flights-2013-{month:02d}.csv")
    for number in (7, 8, 10):
        touch(f"data/numbered-{number}.csv")
    for day in (1, 2, 3, 28):
        touch(f"data/2013/02/{day:02d}/rows-2013-02-{day:02d}.csv")
    for hour in (22, 23):
        touch(f"data/hourly/20130301-{hour}.csv")
    touch("data/hourly/20130302-00.csv")
    return tmp_path


def touch(name: str, content: str = "x") -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def names(source: str, window: str = "all") -> list[str]:
    return [file.span for file in spans.resolve(source, window)]


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        ("all", 1, 9),
        ("last 9 months", 1, 9),
        ("the last 2 months", 8, 9),
        ("last 1 month", 9, 9),
        ("last 2 spans", 8, 9),
        ("last 100 spans", 1, 9),
        ("2013-02..2013-04", 2, 4),
        ("2013-05", 5, 5),
    ],
)
def test_windows_of_months(folder: Path, window: str, first: int, last: int) -> None:
    assert names(MONTHLY, window) == [f"2013-{month:02d}" for month in range(first, last + 1)]


def test_windows_of_other_units(folder: Path) -> None:
    assert names("data/numbered-{SPAN}.csv") == ["7", "8", "10"]  # as numbers, not as text
    assert names("data/numbered-{span}.csv", "last 2 spans") == ["8", "10"]
    assert names("data/numbered-{SPAN}.csv", "7..8") == ["7", "8"]
    daily = "data/{YYYY}/{MM}/{DD}/rows-{YYYY}-{MM}-{DD}.csv"
    assert names(daily, "2013-02-01..2013-02-03") == ["2013-02-01", "2013-02-02", "2013-02-03"]
    hourly = "data/hourly/{YYYY}{MM}{DD}-{HH}.csv"
    assert names(hourly, "last 3 hours") == ["2013-03-01T22", "2013-03-01T23", "2013-03-02T00"]


def test_a_coarse_end_of_a_window_means_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    day = date(2013, 1, 31)
    while day <= date(2013, 3, 1):
        touch(f"rows-{day}.csv")
        day += timedelta(1)
    february = names("rows-{YYYY}-{MM}-{DD}.csv", "2013-02..2013-02")
    assert (february[0], february[-1], len(february)) == ("2013-02-01", "2013-02-28", 28)
    assert names("rows-{YYYY}-{MM}-{DD}.csv", "last 1 month")[0] == "2013-02-02"


@pytest.mark.parametrize(
    ("source", "window", "error", "words"),
    [
        (
            MONTHLY,
            "2013-08..2013-11",
            DataRejectedError,
            "2 of 4 spans in window '2013-08..2013-11' are missing: 2013-10",
        ),
        (MONTHLY, "last 10 months", DataRejectedError, "missing: 2012-12 (present: 2013-01 to 2013-09)"),
        (MONTHLY, "last 9999999 years", DataRejectedError, ", …"),
        (MONTHLY, "last 3 days", InputError, "counts days but a span is a month"),
        (MONTHLY, "2013-01-01..2013-02", InputError, "is a day but a span is a month"),
        (MONTHLY, "2013-04..2013-01", InputError, "ends before it begins"),
        (MONTHLY, "2013-13", InputError, "month must be in 1..12"),
        ("data/numbered-{SPAN}.csv", "7..10", DataRejectedError, "missing: 9"),
        ("data/numbered-{SPAN}.csv", "last 2 days", InputError, "the spans are numbers; say last 2 spans"),
        ("data/numbered-{SPAN}.csv", "2013-01", InputError, "'2013-01' is none"),
        ("data/*.csv", "last 2 months", InputError, "tells no span"),
        ("data/flights-{YYY}-{MM}.csv", "all", InputError, "did you mean {YYYY}?"),
        ("data/flights-{SPANS}.csv", "all", InputError, "did you mean {SPAN}?"),
        ("data/flights-{MM}.csv", "all", InputError, "a time without holes: {YYYY}"),
        ("data/flights-{YYYY}-{SPAN}.csv", "all", InputError, "use {SPAN} alone"),
        ("data/flights-{YYYY.csv", "all", InputError, "brace"),
        ("data", "all", DataRejectedError, "it is a folder; add a pattern such as 'data/*.parquet'"),
        ("data/flight-{YYYY}-{MM}.csv", "all", DataRejectedError, "'data' holds flights-2013-0"),
        ("dat/*.csv", "all", DataRejectedError, "there is no folder 'dat'"),
        ("ftp://host/x.csv", "all", InputError, "unknown scheme 'ftp'"),
    ],
)
def test_what_cannot_be_resolved(folder: Path, source: str, window: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        spans.resolve(source, window)
    assert words in str(caught.value)


def test_a_name_without_a_valid_time_is_rejected(folder: Path) -> None:
    touch("data/flights-2013-13.csv")
    with pytest.raises(DataRejectedError, match=r"flights-2013-13\.csv.*month must be in 1\.\.12"):
        spans.resolve(MONTHLY, "all")


def test_uris_are_relative_where_the_source_is(folder: Path) -> None:
    assert spans.resolve(MONTHLY, "2013-01")[0].uri == "data/flights-2013-01.csv"
    assert spans.resolve(str(folder / MONTHLY), "2013-01")[0].uri == str(folder / "data/flights-2013-01.csv")


def test_a_folder_that_matches_is_no_file(folder: Path) -> None:
    (folder / "data" / "flights-2014-01.csv").mkdir()
    assert names(MONTHLY)[-1] == "2013-09"


@given(present=st.sets(st.integers(0, 40), min_size=1))
def test_a_pinned_window_selects_the_same_spans(tmp_path_factory: pytest.TempPathFactory, present: set[int]) -> None:
    folder = tmp_path_factory.mktemp("spans")
    for number in present:
        (folder / f"rows-{2010 + number // 12}-{number % 12 + 1:02d}.csv").touch()
    source = str(folder / "rows-{YYYY}-{MM}.csv")
    files = spans.resolve(source, "all")
    window = spans.pinned_window(files)
    assert spans.resolve(source, window) == files
    TypeAdapter(Data).validate_python({"source": source, "window": window, "split": {"by": "hash", "key": ["id"]}})
    (folder / "rows-2009-01.csv").touch()
    (folder / "rows-2030-01.csv").touch()
    assert spans.resolve(source, window) == files


def test_files_without_spans_are_pinned_as_all(folder: Path) -> None:
    assert spans.pinned_window(spans.resolve("data/*.csv", "all")) == "all"


def test_a_window_that_ends_at_a_time(folder: Path) -> None:
    def before(window: str, end: datetime) -> str:
        return spans.pinned_window(spans.resolve(MONTHLY, window, end))

    assert before("last 3 months", datetime(2013, 8, 1, tzinfo=UTC)) == "2013-05..2013-07"
    assert before("last 3 spans", datetime(2013, 7, 31, tzinfo=UTC)) == "2013-05..2013-07"
    assert before("all", datetime(2013, 3, 1, tzinfo=UTC)) == "2013-01..2013-02"
    assert before("last 2 months", datetime(2020, 1, 1, tzinfo=UTC)) == "2013-08..2013-09"
    with pytest.raises(DataRejectedError, match="no span that begins before 2013-01-01 00:00"):
        before("last 2 months", datetime(2013, 1, 1, tzinfo=UTC))
    assert [one.span for one in spans.resolve("data/numbered-{SPAN}.csv", "all", datetime(2013, 1, 1, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("source", "window", "last", "cut"),
    [
        (MONTHLY, "last 3 months", "1 month", "2013-09-01T00:00:00"),
        (MONTHLY, "2013-01..2013-02", "10 days", "2013-02-19T00:00:00"),
        ("data/hourly/{YYYY}{MM}{DD}-{HH}.csv", "all", "2 hours", "2013-03-01T23:00:00"),
    ],
)
def test_the_last_of_a_window_is_for_evaluation(folder: Path, source: str, window: str, last: str, cut: str) -> None:
    data = {"source": source, "split": {"by": "time", "column": "departure", "eval_last": last}}
    files = spans.resolve(source, window)
    pinned = spans.pin_data(data, files)
    assert pinned["split"] == {"by": "time", "column": "departure", "eval_from": cut}
    assert pinned["window"] == spans.pinned_window(files)
    assert spans.pin_data(pinned, files) == pinned
    assert "eval_last" in data["split"]


@pytest.mark.parametrize(
    ("source", "last", "words"),
    [
        ("data/numbered-{SPAN}.csv", "1 month", "tells no time; put {YYYY}"),
        ("data/flights-2013-01.csv", "1 month", "tells no time; put {YYYY}"),
        (MONTHLY, "9999 years", "before the year 1"),
    ],
)
def test_an_end_that_cannot_be_counted_from(folder: Path, source: str, last: str, words: str) -> None:
    data = {"split": {"by": "time", "column": "departure", "eval_last": last}, "source": source}
    with pytest.raises(InputError, match=words):
        spans.pin_data(data, spans.resolve(source, "all"))


def test_the_listing_digest_follows_every_change(folder: Path) -> None:
    def digest() -> str:
        return spans.listing_digest(spans.resolve(MONTHLY, "all"))

    path = folder / "data/flights-2013-05.csv"
    first = digest()
    assert digest() == first
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = digest()
    path.write_text("longer")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    longer = digest()
    path.rename(path.with_name("flights-2013-10.csv"))
    assert len({first, touched, longer, digest()}) == 4


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_buckets_are_listed_with_versions(bucket: str, request: pytest.FixtureRequest) -> None:
    from components import storage

    uri = request.getfixturevalue(bucket)
    fs, path = storage.filesystem(uri)
    for month in (1, 2):
        fs.pipe_file(f"{path}/raw/2013/flights-{month:02d}.csv", b"x")
    source = uri + "/raw/{YYYY}/flights-{MM}.csv"
    files = spans.resolve(source, "all")
    assert [(file.uri, file.span, file.size) for file in files] == [
        (f"{uri}/raw/2013/flights-01.csv", "2013-01", 1),
        (f"{uri}/raw/2013/flights-02.csv", "2013-02", 1),
    ]
    before = spans.listing_digest(files)
    fs.pipe_file(f"{path}/raw/2013/flights-02.csv", b"y")
    assert spans.listing_digest(spans.resolve(source, "all")) != before
    with pytest.raises(DataRejectedError, match="no file matches"):
        spans.resolve(f"{uri}/nothing/*.csv", "all")


def test_spans_that_overlap_an_interval(tmp_path: Path) -> None:
    for month in ("2025-01", "2025-02", "2025-04"):
        (tmp_path / f"a-{month}.csv").write_text("a\n1\n")
    source = str(tmp_path / "a-{YYYY}-{MM}.csv")

    def names(start: str, end: str, later: int = 0) -> tuple[list[str], list[str]]:
        ends = (datetime.fromisoformat(f"{one}T00:00+00:00") for one in (start, end))
        files, absent = spans.overlapping(source, *ends, later)
        return [file.span for file in files], absent

    assert names("2025-01-15", "2025-02-01") == (["2025-01"], [])
    assert names("2025-01-31", "2025-02-02") == (["2025-01", "2025-02"], [])
    assert names("2025-02-01", "2025-04-01") == (["2025-02"], ["2025-03"])
    assert names("2025-02-01", "2025-03-01", later=2) == (["2025-02", "2025-04"], [])
    assert names("2024-01-01", "2024-02-01") == ([], ["2024-01"])
    everything = spans.overlapping(str(tmp_path / "*.csv"), datetime(2000, 1, 1), datetime(2000, 1, 2))
    assert len(everything[0]) == 3
