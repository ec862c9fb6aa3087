"""The workflows of GitHub. Needs: the authoring environment, jq; actionlint or Go to build it."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import typer
from ruamel.yaml import YAML

from pipelines.commands import app
from pipelines.environments import ROOT
from pipelines.triggers import dispatch
from tests import servers
from tests.pipelines.test_project import SCHEMA, VALID
from tests.servers import free_port

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yaml"))
SCRIPTS = [path for path in (ROOT / ".github").iterdir() if path.is_file() and os.access(path, os.X_OK)]
WRITES = {
    ("retrain.yaml", "comment-trained"): {"issues"},
    ("retrain.yaml", "comment-deployed"): {"issues"},
    ("release.yaml", "images"): {"contents", "packages"},
}


def read(path: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(path.read_text()))


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return dict(read(path)["jobs"])


def steps(path: Path) -> list[dict[str, Any]]:
    document = read(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def scripts() -> Iterator[tuple[str, str]]:
    """Everything that a shell is given."""
    for path in WORKFLOWS + ACTIONS:
        for index, step in enumerate(steps(path)):
            if "run" in step:
                yield f"{path.name}-{index}", step["run"]
    for path in SCRIPTS:
        yield path.name, path.read_text()


def commands(words: str) -> list[list[str]]:
    """The commands in a script that begin with these words, split as a shell would."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(text for _, text in scripts()))
    found = [line[line.index(words) :] for line in joined.splitlines() if words in line and line.strip()[0] != "#"]
    return [shlex.split(re.split(r"\s[|>&]|\s2>", line)[0]) for line in found]


def actionlint() -> str:
    found = shutil.which("actionlint", path=f"{servers.GO_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found:
        return found
    go = shutil.which("go", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/local/go/bin")
    if go is None:
        pytest.skip(f"actionlint is neither on PATH nor in {servers.GO_TOOLS}, and there is no go to build it")
    environment = {**os.environ, "GOBIN": str(servers.GO_TOOLS)}
    built = subprocess.run([go, "install", ACTIONLINT], env=environment, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"go install {ACTIONLINT} failed: {built.stderr.strip()[-300:]}")
    return str(servers.GO_TOOLS / "actionlint")


def test_actionlint_finds_nothing() -> None:
    done = subprocess.run(
        [actionlint(), "-no-color", *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    text = (ROOT / ".github" / "workflows" / "retrain.yaml").read_text()
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace("needs.train.outputs.window", "needs.train.outputs.windows"))
    assert "windows" in subprocess.run([actionlint(), str(broken)], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", WORKFLOWS + ACTIONS, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_commit(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    for line in lines:
        assert re.fullmatch(
            r"(- )?uses: (\./\.github/actions/[a-z-]+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)", line
        ), line


def test_an_action_has_the_same_commit_everywhere() -> None:
    used = {step["uses"] for path in WORKFLOWS + ACTIONS for step in steps(path) if "@" in step.get("uses", "")}
    assert len({uses.partition("@")[0] for uses in used}) == len(used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_permissions_are_no_more_than_needed(path: Path) -> None:
    document = read(path)
    granted = {"": document["permissions"]} | {name: job.get("permissions", {}) for name, job in jobs(path).items()}
    for job, permissions in granted.items():
        assert isinstance(permissions, Mapping), f"{job}: say which"
        writes = {name for name, level in permissions.items() if level != "read"}
        assert writes == WRITES.get((path.name, job), set())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_ends_some_day(path: Path) -> None:
    for name, job in jobs(path).items():
        assert 0 < job["timeout-minutes"] <= 360, name


@pytest.mark.parametrize("path", WORKFLOWS + ACTIONS, ids=lambda path: path.name)
def test_no_token_is_left_in_the_checkout(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("name", "text"), list(scripts()), ids=lambda value: value if len(value) < 40 else "")
def test_values_reach_a_script_by_its_environment_only(name: str, text: str) -> None:
    assert "${{" not in text, f"{name}: whoever sets the value could run commands"


@pytest.mark.parametrize("path", WORKFLOWS + ACTIONS, ids=lambda path: path.name)
def test_secrets_are_in_the_environment_of_single_steps_only(path: Path) -> None:
    document = read(path)
    for step in steps(path):
        for name in step.get("env", {}):
            assert "secrets." not in name
        assert "secrets." not in json.dumps({key: value for key, value in step.items() if key != "env"})
    for job in document.get("jobs", {}).values():
        assert "secrets." not in json.dumps({key: value for key, value in job.items() if key != "steps"})
    outside = {key: value for key, value in document.items() if key not in ("jobs", "runs")}
    assert "secrets." not in json.dumps(outside)


def test_every_command_of_ours_has_the_options_that_are_used() -> None:
    found = commands("python -m pipelines ")
    assert {words[3] for words in found} >= {"submit", "report", "images", "compile"}
    for words in found:
        command: Any = typer.main.get_command(app)
        given = words[3:]
        while hasattr(command, "commands"):
            command = command.commands[given.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in given if word.startswith("--") and word != "--"} <= known, words


def test_the_options_that_retraining_adds_exist() -> None:
    group: Any = typer.main.get_command(app)
    command = group.commands["submit"]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    text = (ROOT / ".github" / "workflows" / "retrain.yaml").read_text()
    added = set(re.findall(r"(?<=['\s])--[a-z-]+(?=['\s])", text)) - {
        "--repo",
        "--body-file",
        "--raw-output",
        "--output",
    }
    assert added == {"--cache", "--no-cache", "--once", "--set", "--expect"}
    assert added <= known


def test_every_target_that_is_made_exists() -> None:
    found = {words[1] for words in commands("make ")}
    assert found >= {"setup", "images", "kind-up", "kind-load", "test-cluster", "kind-down"}
    made = subprocess.run(
        ["make", "--dry-run", *found], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert made.returncode == 0, made.stderr


def test_what_the_trigger_sends_is_what_retraining_listens_for() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "retrain.yaml")
    assert dispatch.EVENT in workflow["on"]["repository_dispatch"]["types"]
    text = (ROOT / ".github" / "workflows" / "retrain.yaml").read_text()
    assert set(re.findall(r"client_payload\.(\w+)", text)) == {"project", "window"}


def test_deploying_waits_for_approval_of_what_was_trained() -> None:
    deploy = jobs(ROOT / ".github" / "workflows" / "retrain.yaml")["deploy"]
    assert deploy["environment"] == "production"
    assert deploy["needs"] == "train"
    (submit,) = [step["run"] for step in deploy["steps"] if step.get("id") == "submit"]
    assert '--expect "$APPROVED"' in submit
    assert deploy["env"]["APPROVED"] == "${{ needs.train.outputs.inputs }}"


# -------------------------------------------------------------------------------- the scripts, as GitHub runs them


class Runner:
    """What GitHub gives a step, less the cluster."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{ROOT / '.venvs' / 'dev' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(folder / "step-summary"),
            "GITHUB_OUTPUT": str(folder / "output"),
            "PIPELINE": "pipelines/compiled/training.yaml",
            "LOCKGATE_KFP_TOKEN": "",
            **environment,
        }

    def __call__(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def summary(self) -> str:
        return (self.folder / "step-summary").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pipeline.yaml").write_text(VALID)
    (tmp_path / "project" / "schema.pbtxt").write_text(SCHEMA)
    return tmp_path / "project"


def test_a_mistake_is_told_as_one(project: Path, tmp_path: Path) -> None:
    done = Runner(tmp_path, PROJECT=str(project), SETTINGS="training.epochs=3\n\ntraining.epoch=4\n")(".github/submit")
    assert done.returncode == 2
    assert "::error title=Fix your input::" in done.stdout
    assert "training.epoch: unknown key" in done.stdout
    assert (tmp_path / "outcome" / "summary.md").read_text() == Runner(tmp_path).summary()


def test_data_that_is_rejected_is_told_apart(project: Path, tmp_path: Path, s3_bucket: str) -> None:
    settings = f"data.source={s3_bucket}/{{YYYY}}-{{MM}}.csv\npublication.store={s3_bucket}/models"
    runner = Runner(tmp_path, PROJECT=str(project), SETTINGS=settings, WINDOW="2025-01..2025-02")
    done = runner(".github/submit")
    assert done.returncode == 3
    assert (
        "::error title=Data or model rejected; what is in service stays::data rejected: no file matches" in done.stdout
    )
    assert "## Data or model rejected" in runner.summary()


def test_what_was_not_approved_is_not_deployed(project: Path, tmp_path: Path, s3_bucket: str) -> None:
    with fsspec.open(f"{s3_bucket}/2025-01.csv", "w") as file:
        file.write("customer,price\n1,2\n")
    settings = f"data.source={s3_bucket}/{{YYYY}}-{{MM}}.csv\npublication.store={s3_bucket}/models"
    runner = Runner(tmp_path, PROJECT=str(project), SETTINGS=settings, APPROVED="0123456789ab")
    done = runner('.github/submit --set deployment.target=kserve --expect "$APPROVED"')
    assert done.returncode == 2
    assert "::error title=Fix your input::fix your input: --expect 0123456789ab: the inputs are " in done.stdout


def test_a_cluster_that_does_not_answer_is_told_apart(project: Path, tmp_path: Path, s3_bucket: str) -> None:
    with fsspec.open(f"{s3_bucket}/2025-01.csv", "w") as file:
        file.write("customer,price\n1,2\n")
    settings = f"data.source={s3_bucket}/{{YYYY}}-{{MM}}.csv\npublication.store={s3_bucket}/models"
    host = f"http://127.0.0.1:{free_port()}"
    runner = Runner(tmp_path, PROJECT=str(project), SETTINGS=settings, LOCKGATE_KFP_HOST=host)
    done = runner(".github/submit --cache")
    assert done.returncode == 4
    assert "::error title=Try again later::" in done.stdout
    assert host in runner.summary()


CONTENT = 'apiVersion: v1\nkind: Config\nclusters: [{name: "a b"}]'


def test_credentials_are_handed_on_as_files_that_go_away(tmp_path: Path) -> None:
    runner = Runner(
        tmp_path,
        KUBECONFIG_CONTENT=CONTENT,
        GOOGLE_CREDENTIALS='{"type": "service_account"}',
        LOCKGATE_KFP_CA="",
        AWS_ENDPOINT_URL="",
        AWS_ACCESS_KEY_ID="key",
    )
    shown = runner(
        ".github/connected bash -c '"
        'cat "$KUBECONFIG" "$GOOGLE_APPLICATION_CREDENTIALS"; stat -c %a "$KUBECONFIG"; echo "$KUBECONFIG"; env\''
    )
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[:5] == [*CONTENT.splitlines(), '{"type": "service_account"}', "600"]
    assert not Path(lines[5]).parent.exists()
    variables = dict(line.partition("=")[::2] for line in lines[6:])
    assert variables["AWS_ACCESS_KEY_ID"] == "key"
    assert (
        not {"AWS_ENDPOINT_URL", "LOCKGATE_KFP_TOKEN", "LOCKGATE_KFP_CA_CERT", "KUBECONFIG_CONTENT"} & variables.keys()
    )


def test_the_exit_code_of_a_connected_command_is_kept(tmp_path: Path) -> None:
    assert Runner(tmp_path)(".github/connected bash -c 'exit 3'").returncode == 3


def test_a_release_of_another_version_than_the_codes_builds_nothing(tmp_path: Path) -> None:
    done = Runner(tmp_path, REGISTRY="ghcr.io/nobody", VERSION="99.0.0")(".github/release")
    assert done.returncode == 2
    assert "::error title=Not released::the tag says 99.0.0" in done.stdout
    assert not list((tmp_path / "release").iterdir())
