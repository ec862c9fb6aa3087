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
    for name in compiled.names():
        text = compiled.read(name)
        arguments = submission.accepted(text, watched if name == "monitoring" else prepared)
        required = {a.name for a in read_graph(text).arguments if not a.default}
        assert required <= arguments.keys() <= compiled.inputs(text), name
    assert submission.accepted(compiled.read("tuning"), prepared)["parts"] == ["1/1"]


def test_monitoring_is_told_where_and_when(project: LoadedProject) -> None:
    given = load_project(project.path, ["monitoring.log.source=log", "monitoring.window=month"])
    arguments = submission.prepare_monitoring(given, "2013-10").arguments
    assert arguments["monitoring"]["log"]["source"] == str((project.folder / "log").resolve())
    assert arguments["window"] == "2013-10"
    assert re.fullmatch(r"\d{4}-\d\d", submission.prepare_monitoring(given).arguments["window"])
    assert submission.prepare_monitoring(given, pin=False).arguments["window"] == ""


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
