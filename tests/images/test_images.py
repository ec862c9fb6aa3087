"""The images. Needs: a Docker daemon, or root and dockerd; package registries for what is not built yet."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from pipelines.environments import ROOT
from tests.images.conftest import in_container

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]  # the first test builds the images

LIMITS = {"base": 350e6, "tensorflow": 2.4e9, "predictor": 1.4e9}  # bytes, as `docker image inspect` says
ABSENT = {
    "base": (
        *("tensorflow", "tensorflow_transform", "apache_beam", "sklearn", "scipy", "pandas", "kserve"),
        *("adbc_driver_manager", "pyasn1", "pycparser"),
    ),
    "tensorflow": ("kserve", "kubernetes"),
    "predictor": ("tensorflow_transform", "tensorflow_data_validation", "apache_beam", "sklearn"),
}

SERVICES = ("predictor", "stream", "stream/windows")
"""What the predictor's image runs beside stages."""

LOADER = Path(__file__).parent / "load_libraries.py"

Built = Callable[[str], str]
every_image = pytest.mark.parametrize("name", images.NAMES)


def inspected(reference: str) -> dict[str, Any]:
    (found,) = json.loads(subprocess.check_output(["docker", "image", "inspect", reference]))
    return found


def stages(name: str) -> list[str]:
    """The stages whose compiled component names the image."""
    found = []
    for path in sorted((ROOT / "components").glob("*/component.yaml")):
        spec = next(iter(yaml.safe_load_all(path.read_text())))
        (executor,) = spec["deploymentSpec"]["executors"].values()
        if executor["container"]["image"] == images.reference(name):
            found.append(path.parent.name)
    return found


@every_image
def test_size(built: Built, name: str) -> None:
    assert inspected(built(name))["Size"] <= LIMITS[name]


@every_image
def test_configuration(built: Built, name: str) -> None:
    config = inspected(built(name))["Config"]
    user = config["User"].partition(":")
    assert user[0].isdigit()
    assert int(user[0]) > 0
    assert user[2] == "0"  # OpenShift: any user, this group
    variables = dict(entry.split("=", 1) for entry in config["Env"])
    assert variables["LANG"] == "C.UTF-8"
    assert variables["TZ"] == "Etc/UTC"
    assert not [key for key in variables if any(word in key for word in ("TOKEN", "SECRET", "PASSWORD", "INDEX"))]
    labels = config["Labels"]
    for label in ("title", "description", "version", "base.name"):
        assert labels[f"org.opencontainers.image.{label}"]


@every_image
def test_runs_as_anybody_and_writes_nowhere_but_in_tmp(built: Built, name: str) -> None:
    probe = (
        "import getpass, os, pathlib, tempfile, time, zoneinfo\n"
        "zoneinfo.ZoneInfo('America/New_York')\n"
        "assert time.tzname[0] == 'UTC', time.tzname\n"
        "assert 'é'.encode() == open('/tmp/é', 'w+b').name.encode()[-2:]\n"
        "pathlib.Path.home().joinpath('x').write_text('x'); tempfile.mkdtemp()\n"
        "try: pathlib.Path('/opt/lockgate/x').write_text('x')\n"
        "except OSError: print(os.getuid(), getpass.getuser())\n"
    )
    assert in_container(built(name), "python3", "-c", probe) == "12345 lockgate\n"


@every_image
def test_holds_no_tools_and_no_caches(built: Built, name: str) -> None:
    probe = (
        "for tool in gcc g++ cc make ld strip uv pip git curl; do command -v $tool; done; "
        "find / -xdev \\( -name '.cache' -o -name '*.whl' -o -name 'id_rsa' -o -name '.netrc' -o -name 'pip.conf' \\) "
        "-not -path '/proc/*' 2>/dev/null; "
        "find /build /var/lib/apt/lists /var/cache/apt -type f -size +0 2>/dev/null; true"
    )
    found = in_container(built(name), "sh", "-c", probe).split()
    # The official Python image brings its own pip along.
    assert [path for path in found if path != "/usr/local/bin/pip"] == []


@every_image
def test_holds_no_libraries_of_other_images(built: Built, name: str) -> None:
    probe = "import importlib.util, sys; print([m for m in sys.argv[1:] if importlib.util.find_spec(m)])"
    assert in_container(built(name), "python3", "-c", probe, *ABSENT[name]) == "[]\n"


@every_image
def test_every_shared_library_loads(built: Built, name: str) -> None:
    """Nothing that slim.py removed or stripped is missed by what stayed."""
    found = json.loads(in_container(built(name), "python3", str(LOADER), mounts=(LOADER.parent,)))
    assert found["failed"] == []
    assert found["loaded"] > 50


@every_image
def test_every_stage_finds_what_it_imports(built: Built, name: str) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in [*stages(name), *(SERVICES if name == "predictor" else ())]
        for path in sorted((ROOT / "components" / folder).glob("*.py"))
        if path.stem not in {"component", "__init__", "__main__"}
    ]
    assert modules
    probe = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]; print(len(sys.argv) - 1)"
    assert in_container(built(name), "python3", "-W", "ignore", "-c", probe, *modules).split()[-1] == str(len(modules))
