"""Whether new data is a reason to train, with real storage servers. Needs: the authoring environment."""

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from components.errors import InputError, UnavailableError
from pipelines.project import LoadedProject, load_project
from pipelines.triggers.decision import Action, Decision, decide
from pipelines.triggers.trigger import Trigger
from tests.pipelines.test_project import SCHEMA, VALID

Project = Callable[..., LoadedProject]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Makes a project on a source."""
    (tmp_path / "pipeline.yaml").write_text(VALID)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    return lambda source, window="last 3 months": load_project(
        tmp_path, [f"data.source={source}", f"data.window={window}"]
    )


def write(uri: str, text: str = "customer,price\n1,2.5\n") -> str:
    with fsspec.open(uri, "w") as file:
        file.write(text)
    return uri


@pytest.fixture(params=["s3_bucket", "gcs_bucket"])
def bucket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_a_window_is_waited_for_until_its_last_span_is_there(bucket: str, project: Project) -> None:
    loaded = project(f"{bucket}/shop/{{YYYY}}-{{MM}}.csv", "2025-01..2025-03")
    for month in ("2025-01", "2025-03"):
        decision = decide(loaded, [write(f"{bucket}/shop/{month}.csv")])
        assert decision.action is Action.WAIT
        assert "2025-02" in decision.reason
    decision = decide(loaded, [write(f"{bucket}/shop/2025-02.csv")])
    assert (decision.action, decision.window) == (Action.START, "2025-01..2025-03")
    assert decision.reason == "window 2025-01..2025-03 is complete: 3 files"


def test_a_moving_window_ends_at_the_new_span(bucket: str, project: Project) -> None:
    loaded = project(f"{bucket}/shop/{{YYYY}}-{{MM}}.csv")
    for month in range(1, 5):
        last = write(f"{bucket}/shop/2025-0{month}.csv")
    assert decide(loaded, [last]).window == "2025-02..2025-04"


@pytest.mark.parametrize("name", ["other/2025-03.csv", "shop/readme.txt", "shop/2025-13.parquet", "shop/2025-01.csv"])
def test_what_is_not_in_the_window_is_ignored(s3_bucket: str, project: Project, name: str) -> None:
    loaded = project(f"{s3_bucket}/shop/{{YYYY}}-{{MM}}.csv", "2025-02..2025-03")
    for month in ("2025-02", "2025-03"):
        write(f"{s3_bucket}/shop/{month}.csv")
    decision = decide(loaded, [write(f"{s3_bucket}/{name}")])
    assert decision.action is Action.IGNORE
    assert f"{s3_bucket}/shop/" in decision.reason


def test_an_event_about_an_object_that_is_not_there_starts_nothing(s3_bucket: str, project: Project) -> None:
    loaded = project(f"{s3_bucket}/shop/{{YYYY}}-{{MM}}.csv", "all")
    write(f"{s3_bucket}/shop/2025-01.csv")
    assert decide(loaded, [f"{s3_bucket}/shop/2025-02.csv"]).action is Action.IGNORE


def test_another_bucket_is_not_even_looked_at(project: Project) -> None:
    assert decide(project("s3://nobody-has-this/x.csv", "all"), ["s3://other/x.csv"]).action is Action.IGNORE


def test_the_key_names_the_content(bucket: str, project: Project) -> None:
    loaded = project(f"{bucket}/shop/{{YYYY}}-{{MM}}.csv", "2025-01..2025-02")
    first, second = (write(f"{bucket}/shop/{month}.csv") for month in ("2025-01", "2025-02"))
    key = decide(loaded, [first]).key
    assert decide(loaded, [second]).key == decide(loaded).key == key
    write(second, "customer,price\n2,2.5\n")
    assert decide(loaded, [second]).key != key


def test_a_marker_stands_for_a_whole_span(s3_bucket: str, project: Project) -> None:
    loaded = project(f"{s3_bucket}/shop/{{YYYY}}-{{MM}}/*.csv", "all")
    part = write(f"{s3_bucket}/shop/2025-01/part-0.csv")
    assert decide(loaded, [part], "_SUCCESS").action is Action.IGNORE
    marker = write(f"{s3_bucket}/shop/2025-01/_SUCCESS", "")
    assert decide(loaded, [marker], "_SUCCESS").action is Action.START
    assert decide(loaded, [f"{s3_bucket}/other/_SUCCESS"], "_SUCCESS").action is Action.IGNORE


def test_without_an_event_what_is_there_counts(tmp_path: Path, project: Project) -> None:
    loaded = project("data/{YYYY}-{MM}.csv", "last 2 months")
    assert decide(loaded).action is Action.WAIT
    (tmp_path / "data").mkdir()
    for month in ("2025-01", "2025-02"):
        (tmp_path / "data" / f"{month}.csv").write_text("customer\n1\n")
    assert decide(loaded).window == "2025-01..2025-02"


def test_a_source_that_makes_no_sense_is_told(project: Project) -> None:
    with pytest.raises(InputError, match="unknown placeholder"):
        decide(project("data/{YEAR}.csv"))


class Started:
    """What was started; out of order when told so."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.broken = False

    def __call__(self, decision: Decision) -> str:
        if self.broken:
            raise UnavailableError("CI does not answer")
        self.decisions.append(decision)
        return "started"


def test_the_same_data_starts_retraining_once(s3_bucket: str, project: Project) -> None:
    loaded, started = project(f"{s3_bucket}/{{YYYY}}-{{MM}}.csv", "2025-01..2025-02"), Started()
    trigger = Trigger(loaded, started)
    first, second = (write(f"{s3_bucket}/{month}.csv") for month in ("2025-01", "2025-02"))
    decisions = [trigger.pull(written) for written in ([first], [second], [second, first], None)]
    assert [decision.action for decision in decisions] == [Action.START, *[Action.IGNORE] * 3]
    assert "already started for window 2025-01..2025-02" in decisions[1].reason
    assert trigger.pull([write(second, "customer,price\n2,2.5\n")]).action is Action.START
    assert len(started.decisions) == 2


def test_what_could_not_be_started_is_started_the_next_time(s3_bucket: str, project: Project) -> None:
    started = Started()
    trigger = Trigger(project(f"{s3_bucket}/{{YYYY}}-{{MM}}.csv", "all"), started)
    written = [write(f"{s3_bucket}/2025-01.csv")]
    started.broken = True
    with pytest.raises(UnavailableError):
        trigger.pull(written)
    started.broken = False
    assert trigger.pull(written).action is Action.START
