"""What is pinned, and fetching it from a repository."""

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.errors import InputError, UnavailableError
from pipelines.kind import sources, vendor
from pipelines.kind.sources import Source

REMOTE = "https://github.com/argoproj/argo-workflows/manifests/base/crds/minimal?ref=v4.0.5"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A folder of repositories with one of them: `team/project`."""
    repository = tmp_path / "origin" / "team" / "project"
    (repository / "deploy" / "inner").mkdir(parents=True)
    (repository / "other").mkdir()
    (repository / "deploy" / "kustomization.yaml").write_text("resources: [inner]\n")
    (repository / "deploy" / "inner" / "kustomization.yaml").write_text(f"resources:\n- {REMOTE}&timeout=60s\n")
    (repository / "other" / "large.bin").write_bytes(b"\0" * 1000)
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=one")
    return tmp_path / "origin"


def source(origin: Path, **changes: object) -> Source:
    given = {
        "name": "project",
        "version": "v1",
        "repository": "team/project",
        "commit": git(origin / "team" / "project", "rev-parse", "HEAD"),
        "licence": "MIT",
        "folders": ["deploy"],
        "entries": ["deploy"],
    }
    return Source.model_validate({**given, **changes})


def argo(version: str) -> Source:
    return sources.load().source("argo-workflows").model_copy(update={"version": version})


def test_the_file_is_whole_and_each_source_has_a_licence() -> None:
    platform = sources.load()
    assert [one.name for one in platform.sources] == ["gateway-api", "kserve", "argo-workflows", "pipelines"]
    assert all(one.licence == "Apache-2.0" and one.folders for one in platform.sources)
    assert set(platform.tools) == {"kind", "kubectl"}
    assert all("{version}" in tool.url for tool in platform.tools.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [("commit", "v1.5.1"), ("folders", ["../etc"]), ("name", "/tmp"), ("more", 1), ("entries", ["a/../b"])],
)
def test_a_source_that_pins_nothing_is_refused(origin: Path, key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        source(origin, **{key: value})


def test_vendoring_takes_the_folders_named_and_makes_urls_paths(origin: Path, tmp_path: Path) -> None:
    output, wanted = tmp_path / "vendor", source(origin)
    assert not vendor.is_vendored(wanted, output)
    vendor.vendor(wanted, [argo("v4.0.5")], str(origin), output)
    assert vendor.is_vendored(wanted, output)
    assert not (output / "project" / "other").exists()
    inner = output / "project" / "deploy" / "inner"
    line = (inner / "kustomization.yaml").read_text().splitlines()[1]
    assert (inner / line.removeprefix("- ")).resolve() == output / "argo-workflows/manifests/base/crds/minimal"
    assert list(vendor.missing([wanted], output)) == []
    assert [path.name for path in output.iterdir()] == ["project"]


def test_vendoring_again_replaces_an_older_commit(origin: Path, tmp_path: Path) -> None:
    old = source(origin)
    vendor.vendor(old, [argo("v4.0.5")], str(origin), tmp_path / "vendor")
    repository = origin / "team" / "project"
    git(repository, "rm", "-r", "--quiet", "deploy/inner")
    git(repository, "commit", "--quiet", "--message=two")
    new = source(origin)
    assert not vendor.is_vendored(new, tmp_path / "vendor")
    vendor.vendor(new, [], str(origin), tmp_path / "vendor")
    assert not (tmp_path / "vendor" / "project" / "deploy" / "inner").exists()


def test_a_base_of_another_version_than_the_pinned_one_is_refused(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"wants argo-workflows v4\.0\.5 \(pinned: v4\.0\.6\)"):
        vendor.vendor(source(origin), [argo("v4.0.6")], str(origin), tmp_path / "vendor")
    assert not (tmp_path / "vendor" / "project").exists()


def test_a_commit_that_is_not_there_leaves_nothing_behind(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="team/project at ffffffffffff from"):
        vendor.vendor(source(origin, commit="f" * 40), [], str(origin), tmp_path / "vendor")
    assert list((tmp_path / "vendor").iterdir()) == []


def test_a_folder_without_the_repository_says_where_it_looked(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither .*/elsewhere/team/project\.git nor .*/elsewhere/team/project;"):
        vendor.vendor(source(origin), [], str(tmp_path / "elsewhere"), tmp_path / "vendor")


def test_a_folder_that_the_commit_lacks_is_named(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="team/project has no folder 'charts' at"):
        vendor.vendor(source(origin, folders=["charts"]), [], str(origin), tmp_path / "vendor")


def test_missing_names_the_entries_that_a_folder_lacks(tmp_path: Path) -> None:
    lacking = list(vendor.missing(sources.load().sources, tmp_path))
    assert lacking[0] == "gateway-api/config/crd"
    assert "pipelines/manifests/kustomize/env/platform-agnostic" in lacking
