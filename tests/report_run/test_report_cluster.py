"""The page of a run on a cluster: its stages come from the API of Kubeflow Pipelines, or the page says why not."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import pipelines_api
from components.report_run import known
from components.report_run.summary import summarize
from components.settings import Prices
from tests.pipelines.kubeflow_server import Answer, Kubeflow, serving
from tests.pipelines.kubeflow_workflow import pod_of, task, workflow
from tests.report_run.test_report_summary import Text

RUN_ID = "689e9531-4a94-4ff2-b777-00f7c640790e"
STAGES = ("ingest-data", "gate", "transform-data", "evaluate-model", "publish-model", "report-run")
REASON = "3 anomalies in split 'train' (allowed: 0)"
REPORT = task("report-run", 50, "Running", inside="training-x7k2p.root.exit-handler-1.onExit")


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as started:
        yield started


@pytest.fixture(autouse=True)
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that Kubernetes gives a pod; <service>.<namespace> is an address of this machine."""
    (tmp_path / "namespace").write_text("0.1\n")
    monkeypatch.setattr(pipelines_api, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(pipelines_api, "TOKEN", tmp_path / "token")
    monkeypatch.setattr(pipelines_api, "SERVICE", "127.0")
    monkeypatch.setattr(known, "_LAG_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)


def put_run(kubeflow: Kubeflow, *nodes: dict[str, Any]) -> dict[str, Any]:
    tasks = [{"name": f"{name}-driver", "template": "system-container-driver"} for name in STAGES]
    groups = [{"name": "root-driver", "template": "system-dag-driver"}]
    made = workflow(*nodes) | {"spec": {"templates": [{"dag": {"tasks": tasks}}, {"dag": {"tasks": groups}}, {}]}}
    kubeflow.manifests[RUN_ID] = made
    return made


def page(url: str, monkeypatch: pytest.MonkeyPatch, state: str = "FAILED", run_id: str = RUN_ID) -> Text:
    """Writes the page as in a pod of Kubeflow at that address; KFP 2.17.0 leaves the placeholder as it is."""
    monkeypatch.setattr(pipelines_api, "_PORT", int(url.rpartition(":")[2]))
    summarize(state, "shop-1", run_id, "{{$.pipeline_root}}", Prices(), Path("page"))
    return Text(Path("page"))


def printed(outputs: dict[str, Any]) -> str:
    return (
        f"rows: 10\nI0101 10:00:00.0 1 launcher_v2.go:1230] ExecutorOutput: {json.dumps(outputs, indent=2)}\nI0101 end"
    )


def test_a_red_gate_says_why(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "main: Error (exit code 1)"
    gate = task("gate", 20, "Failed", inputs={"verdict": "fail", "reason": REASON}, message=message)
    made = put_run(kubeflow, *task("ingest-data", 0, cached=True), *gate, *REPORT)
    kubeflow.logs[pod_of(made, "gate")] = f"data gate: data rejected: {REASON}\nF0101 10:00:02.0 1 x] exit status 3\n"
    text = page(kubeflow.url, monkeypatch).text
    assert text.startswith("Run shop-1 Run shop-1 failed Started 2026-01-01 10:00:00 UTC.")
    assert f"gate : data gate: data rejected: {REASON}" in text
    assert f"gate fail {REASON}" in text
    for row in ("ingest-data cached 2.0 s", "gate failed 7.0 s", "publish-model skipped –", "Run 27.0 s"):
        assert row in text
    assert "report-run" not in text
    assert not {"CPU time", "Peak memory", "Cost"} & set(text.split("keeps no CPU time and no peak memory")[0].split())
    assert [path.name for path in Path().iterdir() if path.name not in ("namespace", "page")] == []


def test_what_the_stages_printed_makes_metrics_and_lineage(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    done = [node for start, name in enumerate(STAGES[:-1]) for node in task(name, 10 * start)]
    made = put_run(kubeflow, *done, *REPORT)
    examples = {"uri": "minio://b/examples", "metadata": {"train": 8000, "digest": "da7a" * 16, "spans": "2025-01"}}
    metrics = {"uri": "", "metadata": {"auc": 0.7123, "rows": 2000}}
    for name, outputs in {
        "ingest-data": {"artifacts": {"examples": {"artifacts": [{"name": "examples", **examples}]}}},
        "evaluate-model": {"artifacts": {"metrics": {"artifacts": [metrics]}}},
        "publish-model": {"parameterValues": {"uri": "s3://models/shop/versions/v0003-1a2b3c4d", "version": "v0003"}},
        "transform-data": {"artifacts": {"transformed": {"artifacts": []}}},
    }.items():
        kubeflow.logs[pod_of(made, name)] = printed(outputs)
    text = page(kubeflow.url, monkeypatch, "COMPLETE").text
    for words in ("passed", "auc 0.7123", "train 8000", "da7ada7ada7a", "version v0003 uri s3://models/shop"):
        assert words in text
    assert "Transform no details here Model not reached" in text


def test_a_verdict_is_the_stages_own_also_where_its_outputs_were_cut(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = {"verdict": "pass", "reason": "auc 0.7 {a}"}
    made = put_run(kubeflow, *task("evaluate-model", 0), *task("gate", 20, inputs=verdict), *REPORT)
    curve = {"artifacts": {"curve": {"artifacts": [{"uri": "", "metadata": {"points": list(range(1000))}}]}}}
    outputs = printed({"parameterValues": verdict, **curve})
    kubeflow.logs[pod_of(made, "evaluate-model")] = outputs[:5000] + "\nI0101 10:00:01.0 1 launcher_v2.go:867] }\n"
    text = page(kubeflow.url, monkeypatch, "COMPLETE").text
    assert "evaluate-model pass auc 0.7 {a}" in text
    assert text.count("auc 0.7 {a}") == 1


def test_the_reason_is_argos_where_the_log_is_gone(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(kubeflow, *task("ingest-data", 0, "Failed", message="OOMKilled (exit code 137)"), *REPORT)
    assert "OOMKilled (exit code 137); out of memory? raise" in page(kubeflow.url, monkeypatch).text


def test_it_waits_until_the_api_knows_what_has_happened(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(dict[str, Any]):
        looks = 0

        def get(self, key: str, default: Any = None) -> Any:
            self.looks += 1
            nodes = task("ingest-data", 0, "Running") if self.looks == 1 else [*task("ingest-data", 0), *REPORT]
            return put_run(Kubeflow(), *nodes)

    kubeflow.manifests = Late()
    monkeypatch.setattr(known, "_LAG_SECONDS", 60.0)
    assert "ingest-data succeeded" in page(kubeflow.url, monkeypatch).text
    assert kubeflow.manifests.looks == 2


def test_a_token_is_sent_where_the_pod_has_one(
    kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token = "abc.def"
    put_run(kubeflow, *task("ingest-data", 0), *REPORT)
    assert f"{kubeflow.url} answers 401" in page(kubeflow.url, monkeypatch).text
    (tmp_path / "token").write_text("abc.def\n")
    text = page(kubeflow.url, monkeypatch).text
    assert "ingest-data succeeded" in text
    assert "abc.def" not in text


ANSWERS: dict[str, tuple[Answer, str]] = {
    "no such run": ((404, {"code": 5}), "answers 404"),
    "not allowed": ((403, "<html>Sign in</html>"), "answers 403"),
    "away": ((503, ""), "answers 503"),
    "moved": ((302, ""), "answers 302"),
    "a page": ((200, "<html>Dashboard</html>"), "is not the API"),
    "a list": ((200, []), "is not the API"),
    "no runtime": ((200, {}), "not understood"),
    "no workflow": ((200, {"pipeline_runtime": {"workflow_manifest": ""}}), "not understood"),
    "cut off": ((200, {"pipeline_runtime": {"workflow_manifest": '{"metadata": {'}}), "not understood"),
    "another workflow": ((200, {"pipeline_runtime": {"workflow_manifest": "[1]"}}), "not understood"),
    "null": ((200, {"pipeline_runtime": None}), "not understood"),
}
"""By what is wrong: what answers, and what the page says."""


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_a_page_is_written_whatever_answers(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str
) -> None:
    monkeypatch.setattr(kubeflow, "answer", lambda *_: answer)
    text = page(kubeflow.url, monkeypatch).text
    assert "Run shop-1 failed" in text
    assert "The stages are not shown here, but where the run is:" in text
    assert said in text


@pytest.mark.parametrize("log", ["ExecutorOutput: {\n}", "ExecutorOutput: {\n]\n}", "", "\x00\xff"])
@pytest.mark.parametrize("outputs", [None, {"artifacts": None}, {"artifacts": {"x": []}, "parameterValues": [1]}])
def test_odd_logs_cost_details_only(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, log: str, outputs: dict[str, Any] | None
) -> None:
    made = put_run(kubeflow, *task("ingest-data", 0), *REPORT)
    kubeflow.logs[pod_of(made, "ingest-data")] = log if outputs is None else printed(outputs) + log
    assert "ingest-data succeeded 7.0 s" in page(kubeflow.url, monkeypatch).text


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        text = page(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch).text
    assert "does not answer" in text


@contextlib.contextmanager
def stalling(*parts: bytes) -> Iterator[str]:
    """A server that sends these parts, the last one again and again, and never ends."""
    over = threading.Event()

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            for part in parts[:-1]:
                connection.sendall(part)
            while not over.wait(0.05):
                connection.sendall(parts[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=[listener])
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.parametrize("parts", [(b"",), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")], ids=["silent", "endless"])
def test_an_api_that_never_finishes_is_given_up(monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]) -> None:
    monkeypatch.setattr(pipelines_api, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(pipelines_api, "_ALL_SECONDS", 1.0)
    with stalling(*parts) as url:
        text = page(url, monkeypatch).text
    assert "takes too long to answer" in text or "does not answer" in text


def test_elsewhere_than_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "namespace").unlink()
    assert "this is no pod" in page("http://127.0.0.1:1", monkeypatch).text


def test_a_pipeline_that_does_not_say_its_run(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not pass `run_id`" in page(kubeflow.url, monkeypatch, run_id="").text
    assert kubeflow.requests == []
