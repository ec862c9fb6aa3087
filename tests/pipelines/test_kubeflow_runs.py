"""Following, reading and stopping runs, as a user types it. Needs: the authoring environment."""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from components.errors import InputError
from components.stage_logs import read_log
from components.workflow import read_steps
from pipelines import commands, compiled
from pipelines.kubeflow import watching
from pipelines.kubeflow.connection import Connection, connect
from pipelines.kubeflow.pod_logs import WithPods
from tests.pipelines.kubeflow_server import Kubeflow, serving
from tests.pipelines.kubeflow_workflow import node, pod_of, task, workflow
from tests.pipelines.test_kubeflow_connection import kubeconfig

Cli = Callable[..., tuple[int, str, str]]

REJECTED = "3 anomalies in split 'train' (allowed: 0)"
LOG = f"""\
I0101 10:00:00.000000 1 launcher_v2.go:90] input ExecutorInput:{{
[KFP Executor 2026-01-01 10:00:01,000 INFO]: Got executor_input:
{{
    "inputs": {{
        "buckets": [
            16
        ]
checking
    }}
}}
data gate: data rejected: {REJECTED}
I0101 10:00:02.000000 1 launcher_v2.go:188] publish success.
F0101 10:00:02.000000 1 main.go:60] failed to execute component: exit status 3
"""


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as started:
        yield started


@pytest.fixture
def cli(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("LOCKGATE_KFP_HOST", kubeflow.url)
    monkeypatch.setattr(watching, "_PAUSE", 0.05)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pipelines", *arguments])
        code = commands.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def put_run(kubeflow: Kubeflow, state: str, *nodes: dict, **values: object) -> str:
    """A run of the training pipeline."""
    spec = next(iter(yaml.safe_load_all(compiled.read("training"))))
    run = kubeflow.run("flights-1", state, pipeline_spec=spec, **values)
    kubeflow.manifests[run] = workflow(*nodes)
    return run


INGESTED = task("ingest-data", 0)
GATE_FAILED = task(
    "gate", 20, "Failed", inputs={"verdict": "fail", "reason": REJECTED}, message="main: Error (exit code 1)"
)


@pytest.mark.parametrize("command", [["wait"], ["status"]])
def test_rejected_data_is_told_apart(cli: Cli, kubeflow: Kubeflow, command: list[str]) -> None:
    run = put_run(kubeflow, "FAILED", *INGESTED, *task("validate-data", 10), *GATE_FAILED)
    kubeflow.logs[pod_of(kubeflow.manifests[run], "gate")] = LOG
    code, printed, _ = cli(*command, run)
    assert f"cause    data gate: data rejected: {REJECTED}" in printed
    assert printed.startswith("FAILED flights-1")
    assert code == (3 if command == ["wait"] else 0)


def test_the_stages_of_a_run_come_as_lines_and_as_json(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(
        kubeflow,
        "SUCCEEDED",
        *task("ingest-data", 0, cached=True),
        *task("validate-data", 10),
        *task("gate", 20, inputs={"verdict": "pass", "reason": "0 anomalies"}),
        *task("report-run", 30, inside="training-x7k2p.root.exit-handler-1.onExit"),
    )
    code, printed, progress = cli("wait", run)
    assert code == 0
    lines = [" ".join(line.split()) for line in progress.splitlines()]
    assert lines[:3] == ["= ingest-data cached", "✓ validate-data 7.0 s", "✓ data gate 7.0 s 0 anomalies"]
    assert "- train-model its condition is not met" in lines
    assert "data gate 0 anomalies" in printed
    found = json.loads(cli("wait", run, "--json")[1])
    assert (found["verdict"], found["exit_code"], found["cause"]) == ("PASSED", 0, "")
    states = {stage["task"]: stage["state"] for stage in found["stages"]}
    assert states["ingest-data"] == "cached"
    assert states["deploy-model"] == "skipped"
    assert states["report-run"] == "succeeded"


def test_a_published_model_is_named(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "SUCCEEDED", *INGESTED, *task("publish-model", 10))
    uri = "s3://models/flights/versions/v0001-1a2b3c4d"
    output = json.dumps(
        {"parameterValues": {"uri": uri, "version": "v0001-1a2b3c4d", "registries": "mlflow was told: URL"}}, indent=2
    )
    kubeflow.logs[pod_of(kubeflow.manifests[run], "publish-model")] = (
        f"I0101 10:00:00.0 1 x.go:1] ExecutorOutput: {output}\n"
    )
    printed = cli("wait", run)[1]
    assert f"model    {uri}" in printed
    assert "registry mlflow was told: URL" in printed
    assert json.loads(cli("status", run, "--json")[1])["model"] == uri


def test_waiting_outlives_an_api_that_is_away(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "RUNNING", *task("ingest-data", 0, "Running"))
    looks = []

    def on_get_run(run_id: str) -> None:
        looks.append(run_id)
        if len(looks) == 3:
            kubeflow.broken = [500, 500]
        if len(looks) == 5:
            kubeflow.objects["runs"][run]["state"] = "SUCCEEDED"
            kubeflow.manifests[run] = workflow(*INGESTED)

    kubeflow.on_get_run = on_get_run
    code, printed, progress = cli("wait", run)
    assert code == 0
    assert "answers 500: upstream connect error; trying again" in progress
    assert "the API answers again" in progress
    assert printed.startswith("PASSED")


def test_a_stage_that_cannot_start_is_named_while_waiting(cli: Cli, kubeflow: Kubeflow) -> None:
    message = 'ErrImagePull: failed to pull image "ghcr.io/lockgate/base:none": dial tcp: no such host'
    run = put_run(kubeflow, "RUNNING", *task("ingest-data", 0, "Pending", message=message))

    def on_get_run(run_id: str) -> None:  # Kubernetes takes turns with the two
        other = 'ImagePullBackOff: Back-off pulling image "ghcr.io/lockgate/base:none"'
        kubeflow.manifests[run] = workflow(*task("ingest-data", 0, "Pending", message=other))

    assert "(no such host); is it pushed there?" in cli("wait", run, "--timeout", "1")[2]
    kubeflow.on_get_run = on_get_run
    code, _, progress = cli("wait", run, "--timeout", "1")
    reason = "image 'ghcr.io/lockgate/base:none' cannot be pulled; is it pushed there?"
    assert code == 4
    assert progress.count(f"ingest-data waits: {reason}") == 2  # at once, and at the end
    assert f"the run goes on; wait for it by `python -m pipelines wait {run}`" in progress
    assert reason in cli("status", run)[1]


def test_ctrl_c_leaves_the_run_running(cli: Cli, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    run = put_run(kubeflow, "RUNNING", *INGESTED)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    code, _, progress = cli("wait", run)
    assert code == 130
    assert progress.splitlines()[-1].startswith(f"the run goes on; `python -m pipelines wait {run}` follows it")
    assert "finished stages are reused" not in progress
    assert kubeflow.objects["runs"][run]["state"] == "RUNNING"


def test_a_stopped_run_is_no_failure(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "FAILED", *INGESTED, state_history=[{"state": "RUNNING"}, {"state": "CANCELING"}])
    code, printed, _ = cli("wait", run)
    assert (code, printed.splitlines()[0]) == (4, "CANCELED flights-1")


@pytest.mark.parametrize(
    ("message", "log", "code", "said"),
    [
        ("OOMKilled (exit code 137)", "epoch 1\n", 4, "out of memory? raise cluster.stages.train_model.memory_limit"),
        ("Pod was active on the node longer than the specified deadline", "", 4, "train_model.timeout_seconds"),
        ("Step exceeded its deadline", "", 4, "raise cluster.timeout_seconds"),
        ("pod deleted", "", 4, "start the same run again"),
        ("main: Error (exit code 1)", "train_model: fix your input: no column 'x'\n", 2, "no column 'x'"),
        ("main: Error (exit code 1)", "ingest_data: try again later: s3 does not answer\n", 4, "s3 does not answer"),
        ("main: Error (exit code 1)", "Traceback\nValueError: boom\n", 1, "ValueError: boom; main: Error"),
        ("Error (exit code 64): failed to transform", "", 1, "failed to transform"),
    ],
)
def test_causes(cli: Cli, kubeflow: Kubeflow, message: str, log: str, code: int, said: str) -> None:
    run = put_run(kubeflow, "FAILED", *INGESTED, *task("train-model", 10, "Failed", message=message))
    if log:
        kubeflow.logs[pod_of(kubeflow.manifests[run], "train-model")] = log
    ended, printed, _ = cli("wait", run)
    assert ended == code
    assert said in printed


def test_a_run_whose_first_pod_cannot_start_has_a_cause(cli: Cli, kubeflow: Kubeflow) -> None:
    message = "configmaps is forbidden"
    run = put_run(
        kubeflow, "FAILED", node("training-x7k2p.root-driver(0)", "system-dag-driver", "Error", 0, 1, message=message)
    )
    code, printed, progress = cli("wait", run)
    assert (code, f"cause    {message}" in printed) == (1, True), printed
    assert " ".join(progress.splitlines()[0].split()) == f"✗ root 1.0 s {message}"
    assert "condition" not in progress


def test_the_summary_is_markdown_that_nothing_in_it_can_break(cli: Cli, kubeflow: Kubeflow, tmp_path: Path) -> None:
    run = put_run(kubeflow, "FAILED", *INGESTED, *GATE_FAILED, description="project=flights\nwindow=2013-01..2013-09")
    kubeflow.logs[pod_of(kubeflow.manifests[run], "gate")] = "data gate: data rejected: a | b <img>\n"
    assert cli("wait", run, "--summary", str(tmp_path / "summary.md"))[0] == 3
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("## FAILED: flights-1\n\n> data gate: data rejected: a \\| b &lt;img>\n")
    assert "- **window**: 2013-01..2013-09\n" in text
    assert "| ❌ | data gate | 7 s | data gate: data rejected: a \\| b &lt;img> |" in text


def test_a_log_is_that_of_the_stage_that_failed(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "FAILED", *INGESTED, *GATE_FAILED)
    kubeflow.logs[pod_of(kubeflow.manifests[run], "gate")] = LOG
    assert cli("logs", run)[1].splitlines() == ["checking", f"data gate: data rejected: {REJECTED}"]
    assert cli("logs", run, "data gate", "--tail", "1")[1].splitlines() == [f"data gate: data rejected: {REJECTED}"]
    assert cli("logs", run, "gate", "--all")[1] == LOG


def test_a_log_comes_from_the_archive_when_the_pod_is_gone(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "SUCCEEDED", *INGESTED)
    pod = pod_of(kubeflow.manifests[run], "ingest-data")
    kubeflow.archived[pod] = base64.b64encode(b"read 9 files\n").decode()
    assert cli("logs", run, "ingest_data")[1] == "read 9 files\n"
    del kubeflow.archived[pod]
    code, _, said = cli("logs", run, "ingest_data")
    assert (code, "artifact not found" in said) == (2, True)


def test_a_log_that_is_not_archived_yet_comes_through_the_pages(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "RUNNING", *task("ingest-data", 0, "Running"))
    kubeflow.running[pod_of(kubeflow.manifests[run], "ingest-data")] = "read 3 files\n"
    code, _, said = cli("logs", run)
    assert (code, "(svc/ml-pipeline-ui) as --host, or connect by the kubeconfig" in said) == (2, True), said
    kubeflow.is_pages = True
    assert cli("logs", run)[1] == "read 3 files\n"


def test_a_log_that_is_not_archived_yet_comes_from_kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Kubeflow(below="/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy")) as kubeflow:
        (tmp_path / "config").write_text(kubeconfig(kubeflow.url))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        run = put_run(kubeflow, "RUNNING", *task("ingest-data", 0, "Running"))
        pod = pod_of(kubeflow.manifests[run], "ingest-data")
        kubeflow.running[pod] = "read 3 files\n"
        api = WithPods(connect(Connection()))
        assert read_log(api, run, pod) == "read 3 files\n"
        with pytest.raises(InputError, match="no log of pod 'none'"):
            read_log(api, run, "none")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such"], 2, "there is no stage 'no-such'; the stages are: ingest-data, "),
        (["train-model"], 4, "stage 'train-model' has not begun: its turn has not come"),
        (["validate-data"], 2, "stage 'validate-data' is cached in this run"),
        (["gate"], 4, "stage 'data gate' has not begun: Unschedulable: 0/1 nodes are available"),
    ],
)
def test_a_log_that_is_not_there(cli: Cli, kubeflow: Kubeflow, arguments: list[str], code: int, said: str) -> None:
    waits = "Unschedulable: 0/1 nodes are available"
    run = put_run(
        kubeflow,
        "RUNNING",
        *INGESTED,
        *task("validate-data", 10, cached=True),
        *task("gate", 20, "Pending", message=waits),
    )
    ended, _, printed = cli("logs", run, *arguments)
    assert (ended, said in printed) == (code, True), printed


def test_a_log_of_a_stage_that_never_ran(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "SUCCEEDED", *INGESTED)
    for options in ([], ["--follow"]):
        code, _, said = cli("logs", run, "deploy-model", *options)
        assert (code, "stage 'deploy-model' is skipped in this run" in said) == (2, True), said


def test_a_followed_log_ends_with_its_stage(cli: Cli, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.kubeflow.logs._PAUSE", 0.05)
    run = put_run(kubeflow, "RUNNING")
    waiting = workflow(*task("ingest-data", 0, "Pending"))
    pod = pod_of(waiting, "ingest-data")
    kubeflow.logs[pod] = "one\n"
    looks = []

    def on_get_run(run_id: str) -> None:
        looks.append(run_id)
        kubeflow.logs[pod] += f"more {len(looks)}\n"
        if len(looks) == 1:
            kubeflow.manifests[run] = waiting
        if len(looks) == 2:
            kubeflow.manifests[run] = workflow(*task("ingest-data", 0, "Running"))
        if len(looks) == 3:
            kubeflow.broken = [500]
        if len(looks) == 5:
            kubeflow.manifests[run] = workflow(*INGESTED)

    kubeflow.on_get_run = on_get_run
    assert cli("logs", run, "ingest-data", "--follow")[1].splitlines() == [
        "one",
        *(f"more {count}" for count in range(1, 6)),
    ]


def test_a_run_is_found_by_id_name_and_as_the_latest(cli: Cli, kubeflow: Kubeflow) -> None:
    first, second = put_run(kubeflow, "SUCCEEDED"), kubeflow.run("flights-2", "SUCCEEDED", pipeline_spec={})
    for given, wanted in ((first, first), ("flights-1", first), ("latest", second)):
        assert json.loads(cli("status", given, "--json")[1])["id"] == wanted


def test_a_run_that_is_not_there_or_not_the_only_one(cli: Cli, kubeflow: Kubeflow) -> None:
    assert "has no run yet" in cli("status", "latest")[2]
    one, two = kubeflow.run("flights-1"), kubeflow.run("flights-1")
    code, _, said = cli("status", "flights-1")
    assert code == 2
    assert "2 runs are named 'flights-1'" in said
    assert one in said
    assert two in said
    assert "did you mean 'flights-1'?" in cli("status", "flights-2")[2]
    code, _, said = cli("status", "00000000-0000-0000-0000-000000000000")
    assert (code, "there is no run '00000000" in said) == (2, True)


def test_runs_are_listed_by_state_tag_and_experiment(cli: Cli, kubeflow: Kubeflow) -> None:
    assert cli("runs")[1] == "no run\n"
    stopped = [{"state": "CANCELING"}]
    for number, (state, history, team) in enumerate(
        [("SUCCEEDED", [], "a"), ("FAILED", [], "ab"), ("FAILED", stopped, "a"), ("RUNNING", [], "b")]
    ):
        kubeflow.run(f"run-{number}", state, state_history=history, description=f"team={team}\nwindow=all")

    def listed(*options: str) -> list[str]:
        code, printed, said = cli("runs", "--json", *options)
        assert code == 0, said
        return [run["name"] for run in json.loads(printed)]

    assert listed() == ["run-3", "run-2", "run-1", "run-0"]
    assert listed("--limit", "2") == ["run-3", "run-2"]
    assert listed("--state", "failed") == ["run-1"]
    assert listed("--state", "canceled") == ["run-2"]
    assert listed("--tag", "team=a") == ["run-2", "run-0"]
    assert cli("runs", "--state", "broken")[0] == 2
    assert "not KEY=VALUE" in cli("runs", "--tag", "team")[2]
    assert "there is no experiment 'x'" in cli("runs", "--experiment", "x")[2]
    assert "has no pipeline 'x'" in cli("runs", "--pipeline", "x")[2]


def test_a_run_is_stopped_once(cli: Cli, kubeflow: Kubeflow) -> None:
    run = put_run(kubeflow, "RUNNING")
    assert cli("cancel", run)[0] == 0
    assert kubeflow.objects["runs"][run]["state"] == "CANCELING"
    done = put_run(kubeflow, "SUCCEEDED")
    code, _, said = cli("cancel", done)
    assert (code, "is over: SUCCEEDED" in said) == (2, True)


def test_reports_come_through_the_pages(cli: Cli, kubeflow: Kubeflow, tmp_path: Path) -> None:
    run = put_run(
        kubeflow,
        "SUCCEEDED",
        *task(
            "validate-data", 0, outputs={"report": "minio://mlpipeline/v2/x/report", "schema": "minio://mlpipeline/s"}
        ),
        *task("report-run", 10, outputs={"page": "minio://mlpipeline/v2/y/page"}),
    )
    kubeflow.is_pages = True
    kubeflow.pages = {"v2/x/report": "<html>validation</html>", "v2/y/page": "<html>run</html>"}
    code, printed, said = cli("report", run, "--output", str(tmp_path / "pages"))
    assert code == 0, said
    assert printed.splitlines() == [f"{tmp_path}/pages/index.html", f"{tmp_path}/pages/validate-data.html"]
    assert (tmp_path / "pages" / "index.html").read_text() == "<html>run</html>"


def test_reports_come_from_the_object_store_when_there_are_no_pages(
    cli: Cli, kubeflow: Kubeflow, tmp_path: Path, s3_bucket: str
) -> None:
    from components.storage import filesystem

    fs, path = filesystem(f"{s3_bucket}/v2/report")
    fs.pipe_file(path, b"<html>validation</html>")
    run = put_run(
        kubeflow,
        "SUCCEEDED",
        *task("validate-data", 0, outputs={"report": f"{s3_bucket.replace('s3://', 'minio://')}/v2/report"}),
    )
    code, _, said = cli("report", run, "--output", str(tmp_path))
    assert code == 0, said
    assert (tmp_path / "validate-data.html").read_text() == "<html>validation</html>"


def test_a_run_without_reports_says_why(cli: Cli, kubeflow: Kubeflow, tmp_path: Path) -> None:
    run = put_run(kubeflow, "RUNNING", *task("validate-data", 0, cached=True))
    code, _, said = cli("report", run, "--output", str(tmp_path))
    assert (code, "validate-data came from the cache" in said) == (2, True)


def test_a_second_attempt_takes_the_place_of_the_first() -> None:
    made = workflow(*task("ingest-data", 0, "Failed"))
    first = next(n for n in made["status"]["nodes"].values() if n["name"].endswith("executor(0)"))
    second = {**first, "id": "training-x7k2p-77", "name": first["name"].replace("(0)", "(1)"), "phase": "Running"}
    second |= {"startedAt": "2026-01-01T10:00:30Z", "finishedAt": None}
    made["status"]["nodes"]["second"] = second
    step = read_steps(json.dumps(made))["ingest-data"]
    assert (step.state, step.pod) == ("running", "training-x7k2p-system-container-impl-77")
