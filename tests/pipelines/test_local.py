"""Running a compiled pipeline on this machine. Needs: the venv twin of the base image."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfp import compiler, dsl

from components import images
from components.gate.component import gate
from components.run_records import StageRecord, read_records
from pipelines.local import Outcome, run_pipeline


class Silent:
    def planned(self, tasks: Any) -> None:
        self.tasks = dict(tasks)

    def changed(self, record: StageRecord) -> None:
        pass


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def judge(text: str, options: dict, words: dsl.Output[dsl.Dataset], scores: dsl.Output[dsl.Metrics]) -> NamedTuple(
    "O", [("verdict", str), ("echo", str)]
):  # type: ignore[valid-type]
    import json
    import sys
    from pathlib import Path

    Path(words.path).write_text(text)
    scores.log_metric("length", len(text))  # an artifact without a file
    words.metadata["options"] = json.dumps(options, sort_keys=True)
    print("judging in", sys.prefix)
    return ("pass" if len(text) < 200 else "fail", text)  # type: ignore[return-value]


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def die(how: str) -> str:
    import os
    import signal
    import tempfile

    if how == "leave a file":
        return tempfile.mkstemp()[1]
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "bug":
        raise ZeroDivisionError("a bug")
    return how


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def sum_up(status: dsl.PipelineTaskFinalStatus, run_name: str, pipeline_root: str) -> str:
    from components.run_records import read_records

    records = read_records(pipeline_root, run_name)
    return f"{status.state}: " + ", ".join(f"{r.task} {r.state}" for r in records)


@dsl.pipeline(name="probe")
def probe(text: str, options: dict, how: str = "well"):
    reported = sum_up(
        run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, pipeline_root=dsl.PIPELINE_ROOT_PLACEHOLDER
    ).set_caching_options(False)
    with dsl.ExitHandler(reported):
        judged = judge(text=text, options=options)
        passed = gate(name="text", verdict=judged.outputs["verdict"], reason="too long").set_display_name("text gate")
        die(how=how).after(passed)


@pytest.fixture(scope="module")
def compiled_probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compiled") / "probe.yaml"
    compiler.Compiler().compile(probe, str(path))
    return path.read_text()


@pytest.fixture
def run(compiled_probe: str, tmp_path: Path) -> Callable[..., Outcome]:
    count = iter(range(100))

    def start(**arguments: Any) -> Outcome:
        arguments = {"text": "short", "options": {"a": 1}} | arguments
        return run_pipeline(compiled_probe, arguments, tmp_path, f"run-{next(count)}", Silent())

    return start


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def spell(letter: str) -> str:
    if letter == "?":
        raise SystemExit(3)
    return letter * 2


@dsl.pipeline
def spelling(letters: list, after: str = "x"):  # type: ignore[type-arg]
    with dsl.ParallelFor(letters) as letter:
        spelled = spell(letter=letter).set_caching_options(False)
    spell(letter=after).after(spelled).set_display_name("last")


@pytest.mark.parametrize(("letters", "expected"), [(["a", "b", "c"], "succeeded"), (["a", "?", "c"], "failed")])
def test_turns_of_a_loop_are_one_record(letters: list[str], expected: str, tmp_path: Path) -> None:
    compiler.Compiler().compile(spelling, str(tmp_path / "spelling.yaml"))
    text = (tmp_path / "spelling.yaml").read_text()
    outcome = run_pipeline(text, {"letters": letters}, tmp_path / "runs", "run", Silent())
    assert [record.state for record in outcome.records if record.task == "spell"] == [expected]
    assert (outcome.failed is None) == (expected == "succeeded")


def states(outcome: Outcome) -> dict[str, str]:
    return {record.task: record.state for record in outcome.records}


def test_a_run_passes_in_the_twin_of_its_image(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run()
    assert outcome.failed is None
    assert states(outcome) == dict.fromkeys(("judge", "gate", "die", "sum-up"), "succeeded")
    assert ".venvs/base" in Path(outcome.stage("judge").log).read_text()
    assert outcome.stage("sum-up").parameters["Output"] == (
        "SUCCEEDED: judge succeeded, gate succeeded, die succeeded, sum-up running"
    )
    assert {r.task for r in read_records(tmp_path, outcome.run_name)} == {"judge", "gate", "die", "sum-up"}
    judged = outcome.stage("judge")
    assert judged.cpu_seconds > 0
    assert judged.peak_rss_bytes > 2**20
    assert Path(judged.artifacts["words"].uri).read_text() == "short"


def test_a_gate_fails_the_run_and_the_rest_is_skipped(run: Callable[..., Outcome]) -> None:
    outcome = run(text="long " * 100)
    assert outcome.failed.task == "gate"
    assert outcome.failed.exit_code == 3
    assert outcome.failed.error == "text gate: data rejected: too long"
    assert states(outcome) == {"judge": "succeeded", "gate": "failed", "die": "skipped", "sum-up": "succeeded"}
    assert outcome.stage("sum-up").parameters["Output"].startswith("FAILED: ")


def test_an_unchanged_rerun_comes_from_the_cache(run: Callable[..., Outcome]) -> None:
    first, second, changed = run(), run(), run(options={"a": 2})
    assert states(second) == {"judge": "cached", "gate": "cached", "die": "cached", "sum-up": "succeeded"}
    assert second.stage("judge").artifacts == first.stage("judge").artifacts
    assert states(changed)["judge"] == "succeeded"


@pytest.mark.parametrize(
    ("how", "exit_code", "cause"),
    [("signal", -signal.SIGKILL, "killed by signal 9"), ("bug", 1, "ZeroDivisionError: a bug")],
)
def test_a_dead_task_fails_the_run(run: Callable[..., Outcome], how: str, exit_code: int, cause: str) -> None:
    outcome = run(how=how)
    assert outcome.failed.exit_code == exit_code
    assert cause in outcome.failed.error
    assert outcome.stage("sum-up").state == "succeeded"


def test_what_a_task_leaves_among_temporary_files_goes_with_it(run: Callable[..., Outcome]) -> None:
    """TensorFlow writes modules there, and deletes them at an end of the process that a fork never has."""
    left = run(how="leave a file").stage("die").parameters["Output"]
    assert left
    assert not Path(left).exists()


@pytest.mark.parametrize("text", ["it's", '"quoted"', "$(touch x)", "a\nb", "ü–✓", "\\", "'; exit 7; '", ""])
def test_hostile_text_arrives_as_it_was(run: Callable[..., Outcome], text: str) -> None:
    outcome = run(text=text, options={"text": text})
    assert outcome.failed is None
    assert outcome.stage("judge").parameters["echo"] == text
