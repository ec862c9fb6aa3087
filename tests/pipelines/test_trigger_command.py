"""`python -m pipelines trigger`, as a user types it. Needs: the authoring environment."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.storage import filesystem
from pipelines import commands, compiled
from pipelines.triggers import command
from tests.pipelines.kubeflow_server import Kubeflow, serving
from tests.pipelines.test_project import SCHEMA, VALID
from tests.pipelines.test_trigger_events import s3

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as started:
        yield started


@pytest.fixture
def cli(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("LOCKGATE_KFP_HOST", kubeflow.url)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pipelines", "trigger", *arguments])
        code = commands.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def project(tmp_path: Path, s3_bucket: str) -> str:
    settings = VALID.replace("data/{YYYY}-{MM}.csv", f"{s3_bucket}/{{YYYY}}-{{MM}}.csv\n  window: last 2 months")
    (tmp_path / "pipeline.yaml").write_text(f"{settings}publication:\n  store: {s3_bucket}/models\n")
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    return str(tmp_path)


def write(bucket: str, name: str, text: str = "customer\n1\n") -> str:
    fs, path = filesystem(f"{bucket}/{name}")
    fs.pipe_file(path, text.encode())
    return f"{bucket}/{name}"


def runs(kubeflow: Kubeflow) -> list[dict]:
    return list(kubeflow.objects["runs"].values())


def test_a_new_span_starts_one_run(cli: Cli, kubeflow: Kubeflow, project: str, s3_bucket: str) -> None:
    write(s3_bucket, "2025-01.csv")
    new = write(s3_bucket, "2025-02.csv")
    released = str(compiled.FOLDER / "training.yaml")
    code, said, log = cli(project, "--object", new, "--submit", "--compiled", released)
    (run,) = runs(kubeflow)
    assert code == 0, log
    assert said == f"start: window 2025-01..2025-02 is complete: 2 files; started run {run['run_id']}\n"
    assert run["runtime_config"]["parameters"]["data"]["window"] == "2025-01..2025-02"
    assert run["runtime_config"]["parameters"]["config"]["code"]["tag"] == "0.1.0"


def test_the_same_span_again_finds_that_run(cli: Cli, kubeflow: Kubeflow, project: str, s3_bucket: str) -> None:
    for month in ("2025-01", "2025-02"):
        write(s3_bucket, f"{month}.csv")
    assert cli(project, "--submit")[0] == cli(project, "--submit")[0] == 0
    (run,) = runs(kubeflow)
    assert f"run {run['run_id']} on the same inputs is " in cli(project, "--submit")[1]
    write(s3_bucket, "2025-02.csv", "customer\n2\n")
    cli(project, "--submit")
    assert len(runs(kubeflow)) == 2


def test_an_event_from_a_file_and_from_standard_input(
    cli: Cli, project: str, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in ("2025-01", "2025-02"):
        write(s3_bucket, f"{month}.csv")
    event = s3("2025-02.csv")
    event["Records"][0]["s3"]["bucket"]["name"] = s3_bucket.removeprefix("s3://")
    (tmp_path / "event.json").write_text(json.dumps(event))
    code, said, _ = cli(project, "--event", str(tmp_path / "event.json"), "--dry-run", "--json")
    decision = json.loads(said)
    assert (code, decision["action"], decision["window"]) == (0, "start", "2025-01..2025-02")
    with (tmp_path / "event.json").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert json.loads(cli(project, "--event", "-", "--dry-run", "--json")[1])["key"] == decision["key"]


def test_settings_can_be_others_than_the_projects(cli: Cli, project: str, s3_bucket: str) -> None:
    for month in ("2025-01", "2025-02", "2025-03"):
        write(s3_bucket, f"elsewhere/{month}.csv")
    settings = (f"data.source={s3_bucket}/elsewhere/{{YYYY}}-{{MM}}.csv", "data.window=all")
    code, said, _ = cli(project, "--dry-run", *(part for setting in settings for part in ("--set", setting)))
    assert code == 0
    assert "window 2025-01..2025-03 is complete: 3 files" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "what should be started?"),
        (["--dry-run", "--submit"], "what should be started?"),
        (["--dispatch", "a/b", "--dry-run"], "what should be started?"),
        (["--dry-run", "--serve", "0", "--object", "s3://b/x"], "--serve waits for events"),
        (["--dry-run", "--serve", "70000"], "65535"),
        (["--dry-run", "--event", "nowhere.json"], "'nowhere.json' does not exist"),
        (["--dry-run", "--serve", "0"], "nobody could be trusted"),
        (["--dry-run", "--set", "data.window=ten"], "ten"),
    ],
)
def test_mistakes_are_told(cli: Cli, project: str, s3_bucket: str, options: list[str], says: str) -> None:
    write(s3_bucket, "2025-01.csv")
    code, _, said = cli(project, *options)
    assert code == 2
    assert says in said


def test_a_name_cannot_write_lines_of_its_own_into_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    command._log("ignore: 's3://b/x\nstart: \x1b[31mwindow'")
    assert capsys.readouterr().err == "ignore: 's3://b/x start:  [31mwindow'\n"
