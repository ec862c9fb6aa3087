"""What a run is started with. Needs: the authoring environment."""

import re
from pathlib import Path

import pytest
import yaml

from components import images
from components.errors import InputError
from pipelines import compiled, submission
from pipelines.graph import read_graph
from pipelines.project import LoadedProject, load_project
from tests.pipelines.test_project import SCHEMA, VALID
from tests.publish_model.blessed import bless, publish_blessed


@pytest.fixture
def project(tmp_path: Path) -> LoadedProject:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "2025-01.csv").write_text("customer,price,city,visited,bought\n1,2.5,Oslo,0,1\n")
    (tmp_path / "pipeline.yaml").write_text(VALID)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    return load_project(tmp_path)


def images_in(text: str) -> set[str]:
    spec = next(iter(yaml.safe_load_all(text)))
    return {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}


def test_the_card_gets_the_images_that_run(project: LoadedProject) -> None:
    code = submission.prepare(project).arguments["config"]["code"]
    assert code["tag"] == compiled.content_tag() != images.VERSION
    assert f"{code['registry']}/base:{code['tag']}" in images_in(compiled.read("training", tag=compiled.content_tag()))
    other = submission.prepare(project, registry="registry.example:5000/team", tag="1.2").arguments["config"]["code"]
    assert f"{other['registry']}/base:{other['tag']}" in images_in(
        compiled.read("training", "registry.example:5000/team", "1.2")
    )


def test_the_images_do_not_change_what_the_inputs_are(project: LoadedProject) -> None:
    one, other = (submission.prepare(project, tag=tag).arguments for tag in ("1.1", "1.2"))
    assert one["inputs_digest"] == other["inputs_digest"]


def test_a_pipeline_gets_the_arguments_that_it_takes(project: LoadedProject) -> None:
    prepared = submission.prepare(project, "s3://bucket/analysis")
    watched = submission.prepare_monitoring(load_project(project.path, ["monitoring.log.source=log"]), "2013-10")
    publish_blessed(bless(project.folder / "run", "1"), str(project.folder / "models"))
    predicted = submission.prepare_batch(project)
    for name in compiled.names():
        text = compiled.read(name)
        arguments = submission.accepted(
            text, {"monitoring": watched, "batch_prediction": predicted}.get(name, prepared)
        )
        required = {a.name for a in read_graph(text).arguments if not a.default}
        assert required <= arguments.keys() <= compiled.inputs(text), name
    assert submission.accepted(compiled.read("tuning"), prepared)["parts"] == ["1/1"]


def test_monitoring_is_told_who_trains(project: LoadedProject) -> None:
    given = load_project(project.path, ["monitoring.log.source=log", "monitoring.response.retrain=true"])

    def told(**options: bool) -> tuple[str, bool]:
        arguments = submission.prepare_monitoring(given, "2013-10", **options).arguments
        return arguments["retrain_on"], arguments["monitoring"]["response"]["retrain"]

    assert told() == ("kubeflow", True)
    assert told(here=True) == ("local", True)
    assert told(here=True, respond=False) == ("local", False)


def test_monitoring_is_told_where_and_when(project: LoadedProject) -> None:
    given = load_project(project.path, ["monitoring.log.source=log", "monitoring.window=month"])
    arguments = submission.prepare_monitoring(given, "2013-10").arguments
    assert arguments["monitoring"]["log"]["source"] == str((project.folder / "log").resolve())
    assert arguments["window"] == "2013-10"
    assert re.fullmatch(r"\d{4}-\d\d", submission.prepare_monitoring(given).arguments["window"])
    assert submission.prepare_monitoring(given, pin=False).arguments["window"] == ""


def test_monitoring_reads_what_the_deployed_server_logs(project: LoadedProject) -> None:
    served = "deployment.request_log.uri=s3://bucket/requests"
    found = submission.prepare_monitoring(load_project(project.path, [served]), "2013-10").arguments["monitoring"]
    assert found["log"]["source"] == "s3://bucket/requests"
    named = submission.prepare_monitoring(load_project(project.path, [served, "monitoring.log.source=log"]), "2013-10")
    assert named.arguments["monitoring"]["log"]["source"].endswith("/log")
    other = [served, "monitoring.log.format=table"]
    with pytest.raises(InputError, match=r"monitoring\.log\.source is empty"):
        submission.prepare_monitoring(load_project(project.path, other), "2013-10")


@pytest.mark.parametrize(
    ("overrides", "window", "says"),
    [([], "2013-10", "monitoring.log.source is empty"), (["monitoring.log.source=log"], "october", "is no time")],
)
def test_monitoring_without_a_log_or_a_window_is_refused(
    project: LoadedProject, overrides: list[str], window: str, says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        submission.prepare_monitoring(load_project(project.path, overrides), window)


@pytest.mark.parametrize(
    ("overrides", "cache", "says"),
    [([], "", "--analysis-cache s3://"), (["tuning.trials=3"], "s3://bucket/a", "--set tuning.sampler=random")],
)
def test_what_pods_cannot_share_is_refused(project: LoadedProject, overrides: list[str], cache: str, says: str) -> None:
    given = load_project(project.path, overrides)
    with pytest.raises(InputError, match=re.escape(says)):
        submission.accepted(compiled.read("tuning"), submission.prepare(given, cache))


def test_batch_prediction_is_told_which_models_and_where(project: LoadedProject) -> None:
    first = publish_blessed(bless(project.folder / "run", "1"), str(project.folder / "models"))
    second = publish_blessed(bless(project.folder / "other", "2"), str(project.folder / "models"))
    overrides = ["batch.source=rows/{YYYY}.csv", "data.window=2026", "batch.columns=[city]", "batch.challengers.old=1"]
    (project.folder / "rows").mkdir()
    (project.folder / "rows" / "2026.csv").write_text("customer,price,city,visited\n1,2.5,Oslo,0\n")
    prepared = submission.prepare_batch(load_project(project.path, overrides))
    arguments = prepared.arguments
    assert (arguments["production_model"], arguments["challengers"]) == (second.uri, {"old": first.uri})
    assert arguments["data"]["source"] == str(project.folder / "rows" / "{YYYY}.csv")
    assert arguments["batch"]["output"]["target"] == prepared.writes[0] == str(project.folder / "predictions")
    assert arguments["prediction_columns"] == ["city"]
    assert arguments["top_rows"] == 0
    pinned = submission.prepare_batch(load_project(project.path, ["batch.model=1"]))
    assert pinned.arguments["production_model"] == first.uri
    assert pinned.inputs != prepared.inputs
    with pytest.raises(InputError, match="has no version '7'"):
        submission.prepare_batch(load_project(project.path, ["batch.model=7"]))
