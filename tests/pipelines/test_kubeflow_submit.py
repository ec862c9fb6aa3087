"""Starting runs, by hand, by a schedule and over a range of spans. Needs: the authoring environment."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from components.storage import filesystem
from pipelines import commands, compiled
from pipelines.environments import ROOT
from pipelines.graph import read_graph
from pipelines.kubeflow import backfill, watching
from pipelines.kubeflow.pinning import pin_inputs, pinning
from pipelines.kubeflow.submitting import uncached
from tests.pipelines.kubeflow_server import Kubeflow, serving
from tests.pipelines.test_project import SCHEMA, VALID
from tests.publish_model.blessed import NAME, bless, publish_blessed

Cli = Callable[..., tuple[int, str, str]]
SPANS = ("2025-01", "2025-02", "2025-03", "2025-04")


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as started:
        yield started


@pytest.fixture
def cli(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("LOCKGATE_KFP_HOST", kubeflow.url)
    monkeypatch.setattr(watching, "_PAUSE", 0.05)
    monkeypatch.setattr(backfill, "_PAUSE", 0.05)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pipelines", *arguments])
        code = commands.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def project(tmp_path: Path, s3_bucket: str) -> Path:
    """A project with four spans in a bucket."""
    fs, path = filesystem(f"{s3_bucket}/data")
    for span in SPANS:
        fs.pipe_file(f"{path}/{span}.csv", b"customer,price,city,visited,bought\n1,2.5,Oslo,0,1\n")
    settings = VALID.replace("data/{YYYY}-{MM}.csv", f"{s3_bucket}/data/{{YYYY}}-{{MM}}.csv")
    (tmp_path / "pipeline.yaml").write_text(f"{settings}publication:\n  store: {s3_bucket}/models\n")
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    return tmp_path


def made(kubeflow: Kubeflow, kind: str) -> list[dict]:
    return list(kubeflow.objects[kind].values())


def spec_of(version: dict) -> dict:
    return version["pipeline_spec"]["pipeline_spec"]


# ----------------------------------------------------------------------------------------------- submit


def test_a_run_is_started_with_everything_pinned(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    code, printed, said = cli(
        "submit", str(project), "--set", "data.window=last 2 months", "--tag", "team=ml", "--service-account", "runner",
        "--pipeline-root", "s3://artifacts/x", "--image-tag", "7",
    )  # fmt: skip
    assert code == 0, said
    (run,), (version,), (experiment,) = (made(kubeflow, kind) for kind in ("runs", "versions", "experiments"))
    assert run["run_id"] in printed
    assert run["display_name"].startswith("shop-20")
    assert run["description"].splitlines()[:3] == ["project=shop", "pipeline=training", "window=2025-03..2025-04"]
    assert run["description"].splitlines()[-1] == "team=ml"
    assert (run["service_account"], experiment["display_name"]) == ("runner", "shop")
    assert run["runtime_config"]["pipeline_root"] == "s3://artifacts/x"
    assert run["runtime_config"]["parameters"]["data"]["window"] == "2025-03..2025-04"
    assert run["runtime_config"]["parameters"]["config"]["code"]["tag"] == "7"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["name"].startswith("7-")
    images = {e["container"]["image"] for e in spec_of(version)["deploymentSpec"]["executors"].values()}
    assert all(image.endswith(":7") for image in images)


def test_the_same_pipeline_is_uploaded_once(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    assert "uploaded" in cli("submit", str(project))[2]
    assert "as uploaded before" in cli("submit", str(project))[2]
    assert cli("submit", str(project), "--image-tag", "other")[0] == 0
    assert len(made(kubeflow, "runs")) == 3
    assert len(made(kubeflow, "versions")) == 2
    assert len(made(kubeflow, "pipelines")) == len(made(kubeflow, "experiments")) == 1
    assert [one["name"] for one in json.loads(cli("pipelines", "--json")[1])] == ["lockgate-training"]
    listed = json.loads(cli("pipelines", "training", "--json")[1])
    assert len(listed) == 2
    assert listed[0]["tags"] == {"project": "shop"}


def test_nothing_is_started_twice_on_the_same_inputs(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    first = json.loads(cli("submit", str(project), "--once", "--json")[1])
    again = json.loads(cli("submit", str(project), "--once", "--json")[1])
    assert (first["submitted"], again["submitted"], again["id"]) == (True, False, first["id"])
    assert json.loads(cli("submit", str(project), "--once", "--json", "--set", "training.epochs=3")[1])["submitted"]
    kubeflow.objects["runs"][first["id"]]["state"] = "FAILED"
    assert json.loads(cli("submit", str(project), "--once", "--json")[1])["submitted"]


def test_only_what_was_approved_is_started(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    approved = json.loads(cli("submit", str(project), "--json")[1])["tags"]["inputs"]
    assert cli("submit", str(project), "--expect", approved)[0] == 0
    code, _, said = cli("submit", str(project), "--expect", approved, "--set", "training.epochs=3")
    assert (code, f"--expect {approved}: the inputs are" in said) == (2, True), said
    assert len(made(kubeflow, "runs")) == 2


def test_a_released_pipeline_is_submitted_as_it_is(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    assert cli("submit", str(project), "--compiled", str(compiled.FOLDER / "training.yaml"))[0] == 0
    (run,) = made(kubeflow, "runs")
    assert run["runtime_config"]["parameters"]["config"]["code"]["tag"] == "0.1.0"


def test_stages_get_what_the_project_says_of_the_cluster(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    options = ["--set", "cluster.service_account=runner", "--set", "cluster.stages.train_model.memory=9Gi"]
    assert cli("submit", str(project), *options)[0] == 0
    (run,), (version,) = made(kubeflow, "runs"), made(kubeflow, "versions")
    assert run["service_account"] == "runner"
    executors = spec_of(version)["deploymentSpec"]["executors"]
    assert executors["exec-train-model"]["container"]["resources"]["resourceMemoryRequest"] == "9Gi"


def test_the_task_that_pins_reads_with_the_credentials_of_ingest_data(
    cli: Cli, kubeflow: Kubeflow, project: Path
) -> None:
    code, _, said = cli("schedule", "create", str(project), "--every", "1d")
    assert code == 0, said
    (version,) = made(kubeflow, "versions")
    pods = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-pin-inputs"]["secretAsEnv"] == pods["exec-ingest-data"]["secretAsEnv"]
    assert pods["exec-pin-inputs"]["podMetadata"]["labels"]["app.kubernetes.io/component"] == "pin_inputs"
    containers = {k: v["container"] for k, v in spec_of(version)["deploymentSpec"]["executors"].items()}
    assert containers["exec-pin-inputs"]["resources"] == containers["exec-ingest-data"]["resources"]


def test_no_cache_reaches_every_task(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    assert cli("submit", str(project), "--no-cache")[0] == 0
    (version,) = made(kubeflow, "versions")
    spec = spec_of(version)
    dags = [c["dag"] for c in (spec["root"], *spec["components"].values()) if "dag" in c]
    tasks = [task for dag in dags for task in dag["tasks"].values()]
    assert len(tasks) > 15
    assert all(task["cachingOptions"] == {} for task in tasks)
    text = compiled.read("training")
    assert read_graph(uncached(text)) == read_graph(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "publication.store=models"], "publication.store: '{project}/models' is on this machine"),
        (["--set", "data.source=file:///tmp/{YYYY}.csv"], "data.source: 'file:///tmp/{YYYY}.csv' is on this machine"),
        (["--tag", "team"], "--tag 'team': not KEY=VALUE"),
        (["--tag", "window=all"], "--tag window=…: the name is taken"),
        (["--timeout", "5"], "--timeout and --summary are for --wait"),
        (["--compiled", "nowhere.yaml"], "--compiled: 'nowhere.yaml' is no file"),
        (["--compiled", "{project}/schema.pbtxt"], "is no compiled pipeline"),
        (["--pipeline", "x"], "no pipeline 'x' (there are: batch_prediction, monitoring, training, tuning)"),
        (["--set", "data.window=2024-01..2025-02"], "12 of 14 spans in window"),
    ],
)
def test_bad_input(cli: Cli, kubeflow: Kubeflow, project: Path, arguments: list[str], said: str) -> None:
    code, _, printed = cli("submit", str(project), *(a.replace("{project}", str(project)) for a in arguments))
    assert code == (3 if "12 of 14" in said else 2)
    assert said.replace("{project}", str(project)) in printed
    assert kubeflow.requests == []


def test_arguments_that_no_process_takes_are_refused(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    (project / "user.py").write_text("# " + "x" * 90_000)
    (project / "schema.pbtxt").write_text(SCHEMA + "# " + "y" * 60_000)
    code, _, said = cli("submit", str(project), "--set", "user_module=user.py")
    assert code == 2
    assert "(limit: 120,000); the largest: user_module 9" in said
    assert kubeflow.requests == []


@pytest.mark.parametrize("arguments", [["submit", "--help"], ["schedule", "create", "--help"], ["submit", "/nowhere"]])
def test_help_and_bad_input_do_not_wait_for_kfp(arguments: list[str]) -> None:
    program = (
        "import sys; from pipelines.commands import main; sys.argv[1:] = sys.argv[2:]\n"
        "try: main()\n"
        "finally: sys.exit(bool({'kfp', 'kubernetes'} & sys.modules.keys()))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program, "x", *arguments], cwd=ROOT, capture_output=True).returncode == 0
    )


# --------------------------------------------------------------------------------------------- schedule


def test_a_schedule_is_made_changed_paused_and_removed(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    create = ["schedule", "create", str(project), "--set", "data.window=last 2 months", "--cron"]
    code, printed, said = cli(*create, "0 3 * * 1")
    assert code == 0, said
    assert printed.startswith("CREATED shop-training\n  when     cron 0 3 * * 1\n  window   last 2 months\n")
    (schedule,) = made(kubeflow, "recurringruns")
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (schedule["no_catchup"], schedule["max_concurrency"]) == (True, "1")
    arguments = schedule["runtime_config"]["parameters"]
    assert arguments["data"]["window"] == "last 2 months"
    assert not {"data_digest", "inputs_digest", "production_model"} & arguments.keys()

    assert cli(*create, "0 3 * * 1")[1].startswith("UNCHANGED")
    assert cli(*create, "0 4 * * 1")[1].startswith("CHANGED")
    (changed,) = made(kubeflow, "recurringruns")
    assert changed["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * 1"}}
    assert kubeflow.seen("DELETE", "propagation_policy=ORPHAN") == 1

    assert cli("schedule", "pause", "shop-training")[0] == 0
    assert json.loads(cli("schedule", "list", "--json")[1])[0]["enabled"] is False
    assert cli(*create, "0 4 * * 1")[1].startswith("CHANGED")  # as asked for: not paused
    assert json.loads(cli("schedule", "list", "--json")[1])[0]["enabled"] is True
    assert cli("schedule", "pause", "shop-training")[0] == 0
    assert cli("schedule", "resume", changed["recurring_run_id"])[0] == 0
    kubeflow.run("shop-training-1", recurring_run_id=changed["recurring_run_id"])
    shown = json.loads(cli("schedule", "show", "shop-training", "--json")[1])
    assert (shown["enabled"], shown["window"], [run["name"] for run in shown["runs"]]) == (
        True,
        "last 2 months",
        ["shop-training-1"],
    )
    assert cli("schedule", "delete", "shop-training")[0] == 0
    assert made(kubeflow, "recurringruns") == []
    code, _, said = cli("schedule", "pause", "shop-training")
    assert (code, "there is no schedule 'shop-training' (there are: none)" in said) == (2, True)


LOG = ("--pipeline", "monitoring", "--set", "monitoring.log.source=s3://bucket/requests")


def test_a_scheduled_window_is_that_of_the_time_it_was_scheduled_for(
    cli: Cli, kubeflow: Kubeflow, project: Path
) -> None:
    code, printed, said = cli("schedule", "create", str(project), *LOG, "--every", "1d", "--catch-up")
    assert code == 0, said
    assert printed.startswith("CREATED shop-monitoring\n  when     every 1d\n  window   the last day\n"), printed
    (schedule,), (version,) = made(kubeflow, "recurringruns"), made(kubeflow, "versions")
    assert schedule["runtime_config"]["parameters"]["window"] == ""
    assert "pipeline_job_schedule_time_utc" in json.dumps(spec_of(version))
    assert cli("schedule", "create", str(project), *LOG, "--every", "1d", "--catch-up")[1].startswith("UNCHANGED")


def test_a_window_is_monitored_by_hand(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    assert cli("submit", str(project), *LOG, "--window", "2025-03")[0] == 0
    (run,) = made(kubeflow, "runs")
    assert run["runtime_config"]["parameters"]["window"] == "2025-03"
    assert run["description"].splitlines()[:3] == ["project=shop", "pipeline=monitoring", "window=2025-03"]
    code, _, said = cli("submit", str(project), "--window", "2025-03")
    assert (code, "pipeline 'training' judges none; set data.window" in said) == (2, True), said
    code, _, said = cli("submit", str(project), "--pipeline", "monitoring", "--set", "monitoring.log.source=here")
    assert (code, "monitoring.log.source: '" in said) == (2, True), said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "when? give --cron"),
        (["--cron", "0 3 * * 1", "--every", "1d"], "when? give --cron"),
        (["--every", "1d"], "data.window is '2025-01..2025-02': each run of the schedule would read the same"),
        (["--every", "0h"], "--every '0h': not like 30m"),
        (["--cron", "3 * * 1"], "has 4 fields"),
        (["--cron", "0 25 * * *"], "'25' is no hour (0 to 23"),
        (["--cron", "0 3 * * 7"], "Sunday is 0"),
        (["--cron", "@sometimes"], "not one of @yearly"),
        (["--every", "1d", "--start", "tomorrow"], "--start 'tomorrow': not a time"),
        (["--every", "1d", "--start", "2026-02-01", "--end", "2026-01-01"], "is not after --start"),
        (["--every", "1d", "--max-concurrency", "11"], "less than or equal to 10"),
    ],
)
def test_schedules_that_make_no_sense(
    cli: Cli, kubeflow: Kubeflow, project: Path, arguments: list[str], said: str
) -> None:
    code, _, printed = cli("schedule", "create", str(project), "--set", "data.window=2025-01..2025-02", *arguments)
    assert (code, said in printed) == (2, True), printed
    assert kubeflow.requests == []


@pytest.mark.parametrize(
    ("given", "cron"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        ("30 0 3 * * 1", "30 0 3 * * 1"),
        ("*/15 8-18 * * mon-fri", "0 */15 8-18 * * mon-fri"),
        ("0  0 1,15 JAN *", "0 0 0 1,15 JAN *"),
        ("@daily", "@daily"),
    ],
)
def test_cron_gets_a_field_for_seconds(given: str, cron: str) -> None:
    from pipelines.kubeflow.timing import cron_of

    assert cron_of(given) == cron


def test_a_scheduled_run_pins_what_is_there_when_it_starts(project: Path) -> None:
    graph = read_graph(pinning(compiled.read("training", "registry.example/x", "7")))
    assert (graph.tasks[0].name, graph.tasks[0].image) == ("pin-inputs", "registry.example/x/base:7")
    assert graph.tasks[1].after == ("pin-inputs",)
    settings = yaml.safe_load((project / "pipeline.yaml").read_text())
    data = {**settings["data"], "window": "last 2 months"}
    pinned = pin_inputs.python_func(data, settings["publication"], "shop", "abc")
    assert pinned.data == {**data, "window": "2025-03..2025-04"}
    assert pinned.production_model == ""
    assert len(pinned.data_digest) == len(pinned.inputs_digest) == 64
    # What window features look back into decides the result, and is not in the window.
    feature = {"name": "visits", "of": "count", "key": ["customer"], "window": "40 days"}
    looking = pin_inputs.python_func(
        data, settings["publication"], "shop", "abc", {"time": "visited", "features": [feature]}
    )
    assert looking.data == pinned.data
    assert looking.data_digest != pinned.data_digest


def test_a_scheduled_run_is_evaluated_on_the_newest_rows(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    split = {"by": "time", "column": "visited", "eval_last": "1 month"}
    moving = ("--set", f"data.split={json.dumps(split)}", "--set", "data.window=last 2 months")
    assert cli("schedule", "create", str(project), *moving, "--every", "1d")[0] == 0
    given = made(kubeflow, "recurringruns")[0]["runtime_config"]["parameters"]
    assert given["data"]["split"] == split
    pinned = pin_inputs.python_func(given["data"], given["publication"], "shop", given["settings_digest"])
    assert pinned.data["split"] == {"by": "time", "column": "visited", "eval_from": "2025-04-01T00:00:00"}
    assert cli("submit", str(project), *moving)[0] == 0
    assert made(kubeflow, "runs")[0]["runtime_config"]["parameters"]["data"] == pinned.data


def test_an_unchanged_scheduled_run_is_measured_against_what_its_model_replaced(project: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((project / "pipeline.yaml").read_text())
    data, store = {**settings["data"], "window": "all"}, settings["publication"]["store"]
    first = pin_inputs.python_func(data, settings["publication"], NAME, "abc")
    published = publish_blessed(bless(tmp_path / "run", "1"), store, inputs_digest=first.inputs_digest)
    assert pin_inputs.python_func(data, settings["publication"], NAME, "abc") == first
    other = pin_inputs.python_func(data, settings["publication"], NAME, "def")
    assert other.production_model == published.uri


# ----------------------------------------------------------------------------------- batch prediction


@pytest.fixture
def published(project: Path, tmp_path: Path) -> str:
    """URI of a model in the project's store."""
    store = yaml.safe_load((project / "pipeline.yaml").read_text())["publication"]["store"]
    return publish_blessed(bless(tmp_path / "run", "1"), store).uri


def to_predict(project: Path, *options: str) -> list[str]:
    target = yaml.safe_load((project / "pipeline.yaml").read_text())["publication"]["store"].replace("models", "scores")
    return [str(project), "--pipeline", "batch_prediction", "--set", f"batch.output.target={target}", *options]


def test_batch_prediction_pins_window_and_model(cli: Cli, kubeflow: Kubeflow, project: Path, published: str) -> None:
    options = ["--set", "data.window=last 1 month", "--set", "batch.challengers.next=1", "--set", "batch.reasons=3"]
    code, _, said = cli("submit", *to_predict(project, *options))
    assert code == 0, said
    (run,) = made(kubeflow, "runs")
    assert run["description"].splitlines()[:3] == [
        "project=shop",
        "pipeline=batch-prediction",
        "window=2025-04..2025-04",
    ]
    arguments = run["runtime_config"]["parameters"]
    assert (arguments["production_model"], arguments["challengers"]) == (published, {"next": published})
    assert (arguments["reasons"], arguments["top_rows"], arguments["serving_environment"]) == (3, 100, "SERVING")
    assert json.loads(cli("submit", *to_predict(project, *options), "--once", "--json")[1])["submitted"] is False


def test_batch_prediction_needs_a_model_and_places_within_reach(cli: Cli, project: Path) -> None:
    code, _, said = cli("submit", *to_predict(project))
    assert (code, "no model 'shop' is published in" in said) == (2, True), said
    code, _, said = cli("submit", str(project), "--pipeline", "batch_prediction")
    assert (code, "batch.output.target: '" in said and "is on this machine" in said) == (2, True), said


def test_a_schedule_predicts_with_the_model_of_the_day(
    cli: Cli, kubeflow: Kubeflow, project: Path, published: str
) -> None:
    moving = ["--set", "data.window=last 1 month", "--every", "1d"]
    assert cli("schedule", "create", *to_predict(project, *moving))[0] == 0
    (schedule,) = made(kubeflow, "recurringruns")
    arguments = schedule["runtime_config"]["parameters"]
    assert schedule["display_name"] == "shop-batch_prediction"
    assert arguments["data"]["window"] == "last 1 month"
    assert not {"data_digest", "production_model"} & arguments.keys()
    (version,) = made(kubeflow, "versions")
    spec = spec_of(version)
    (predicts,) = (
        task
        for name, task in spec["components"]["comp-exit-handler-1"]["dag"]["tasks"].items()
        if name == "predict-batch"
    )
    assert predicts["inputs"]["parameters"]["model_uri"] == {
        "componentInputParameter": "pipelinechannel--production_model"
    }
    handler = spec["root"]["dag"]["tasks"]["exit-handler-1"]["inputs"]["parameters"]
    assert handler["pipelinechannel--production_model"]["taskOutputParameter"]["producerTask"] == "pin-inputs"
    required = {
        name for name, one in spec["root"]["inputDefinitions"]["parameters"].items() if not one.get("isOptional")
    }
    assert required <= arguments.keys()

    pinned = [*moving, "--set", "batch.model=1", "--name", "pinned"]
    assert cli("schedule", "create", *to_predict(project, *pinned))[0] == 0
    arguments = made(kubeflow, "recurringruns")[-1]["runtime_config"]["parameters"]
    assert arguments["production_model"] == published


def test_a_backfill_predicts_span_by_span(cli: Cli, kubeflow: Kubeflow, project: Path, published: str) -> None:
    finish(kubeflow, {})
    code, _, said = cli("backfill", *to_predict(project), "--from", "2025-02", "--to", "2025-04")
    assert code == 0, said
    windows = [run["runtime_config"]["parameters"]["data"]["window"] for run in made(kubeflow, "runs")]
    assert windows == [f"{span}..{span}" for span in SPANS[1:]]
    assert {run["runtime_config"]["parameters"]["production_model"] for run in made(kubeflow, "runs")} == {published}


# --------------------------------------------------------------------------------------------- backfill


def finish(kubeflow: Kubeflow, states: dict[str, str]) -> list[int]:
    """Lets runs end when they are listed; gives how many were under way each time."""
    under_way: list[int] = []
    answer = kubeflow.answer

    def ending(method: str, url: str, headers: dict, content: bytes) -> tuple:
        if method == "GET" and "/runs?" in url and "page_token" not in url:
            running = [one for one in made(kubeflow, "runs") if one["state"] == "RUNNING"]
            under_way.append(len(running))
            for one in running[:1]:
                span = one["description"].rpartition("span=")[2].splitlines()[0]
                one |= {"state": states.get(span, "SUCCEEDED"), "finished_at": one["created_at"]}
            for one in made(kubeflow, "runs"):
                one["state"] = one["state"].replace("PENDING", "RUNNING")
        return answer(method, url, headers, content)

    kubeflow.answer = ending  # type: ignore[method-assign]
    return under_way


def backfilled(kubeflow: Kubeflow) -> list[str]:
    return [one["runtime_config"]["parameters"]["data"]["window"] for one in made(kubeflow, "runs")]


def test_a_backfill_runs_each_span_once_some_at_a_time(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    under_way = finish(kubeflow, {})
    command = ["backfill", str(project), "--from", "2025-01", "--to", "2025-03", "--concurrency", "2"]
    planned = json.loads(cli(*command, "--dry-run", "--json")[1])
    assert [(one["span"], one["to_do"]) for one in planned] == [(span, True) for span in SPANS[:3]]
    assert made(kubeflow, "runs") == []
    code, printed, said = cli(*command)
    assert code == 0, said
    assert backfilled(kubeflow) == [f"{span}..{span}" for span in SPANS[:3]]
    assert max(under_way) == 2
    assert printed.count("SUCCEEDED") == 3
    assert cli(*command)[0] == 0
    assert len(made(kubeflow, "runs")) == 3
    assert cli(*command[:-4], "--to", "2025-04")[0] == 0
    assert backfilled(kubeflow)[3:] == ["2025-04..2025-04"]


def test_a_backfill_with_other_settings_is_another_one(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    finish(kubeflow, {})
    command = ["backfill", str(project), "--from", "2025-01", "--to", "2025-01"]
    for more in ([], ["--set", "training.epochs=3"], ["--no-cache"], ["--set", "evaluation.min_slice_rows={span}"]):
        cli(*command, *more)
    assert len(made(kubeflow, "runs")) == 3  # the last is no number


def test_failed_spans_are_left_alone_unless_asked_for(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    states = {"2025-02": "FAILED"}
    finish(kubeflow, states)
    command = ["backfill", str(project), "--from", "2025-01", "--to", "2025-02"]
    assert cli(*command)[0] == 1
    assert cli(*command)[0] == 1
    assert len(made(kubeflow, "runs")) == 2
    states.clear()
    assert cli(*command, "--rerun", "failed")[0] == 0
    assert backfilled(kubeflow) == ["2025-01..2025-01", "2025-02..2025-02", "2025-02..2025-02"]


def test_a_backfill_may_read_earlier_spans_too(cli: Cli, kubeflow: Kubeflow, project: Path) -> None:
    finish(kubeflow, {})
    command = ["backfill", str(project), "--from", "2025-02", "--to", "2025-03", "--spans", "2"]
    assert cli(*command, "--set", "publication.description=as of {span}")[0] == 0
    assert backfilled(kubeflow) == ["2025-01..2025-02", "2025-02..2025-03"]
    parameters = made(kubeflow, "runs")[1]["runtime_config"]["parameters"]
    assert parameters["publication"]["description"] == "as of 2025-03"
    assert cli(*command, "--set", "publication.description=as of {span}")[0] == 0
    assert len(made(kubeflow, "runs")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "2024-12", "--to", "2025-02"], 3, "1 of 3 spans in window '2024-12..2025-02' are missing"),
        (["--from", "2025-02", "--to", "2025-01"], 2, "ends before it begins"),
        (["--from", "january", "--to", "2025-01"], 2, "data.window: "),
        (["--from", "2025-01", "--to", "2025-02", "--spans", "2"], 2, "span 2025-01 has only 0 before it"),
        (["--from", "2025-01"], 2, "--to"),
        (["--from", "2025-01", "--to", "2025-02", "--rerun", "some"], 2, "--rerun"),
    ],
)
def test_backfills_that_make_no_sense(
    cli: Cli, kubeflow: Kubeflow, project: Path, arguments: list[str], code: int, said: str
) -> None:
    ended, _, printed = cli("backfill", str(project), *arguments)
    assert (ended, said in printed) == (code, True), printed
    assert made(kubeflow, "runs") == []
