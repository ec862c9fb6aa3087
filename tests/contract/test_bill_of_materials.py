"""The committed SBOMs: what the locks install in the images, under licences that may be there."""

import platform

import pytest
from packaging.requirements import Requirement

from components import images
from pipelines import bill_of_materials
from pipelines.environments import ROOT

LOCKS = {
    "base": "base/requirements.txt",
    "tensorflow": "tensorflow/requirements-tfdv.txt",
    "predictor": "predictor/requirements.txt",
}


@pytest.mark.parametrize("name", images.NAMES)
def test_the_bill_of_materials_is_the_locks(name: str) -> None:
    environment = {
        "python_version": "3.13",
        "python_full_version": "3.13.5",
        "implementation_name": "cpython",
        "platform_machine": platform.machine(),
        "sys_platform": "linux",
    }
    lock = (ROOT / "containers" / LOCKS[name]).read_text()
    requirements = [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if line[:1].isalnum()]
    pinned = {
        bill_of_materials.normalised(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    assert bill_of_materials.packages(name) == pinned, "run `make images` and commit containers/*/sbom.cdx.json"


@pytest.mark.parametrize("name", images.NAMES)
def test_every_licence_is_allowed(name: str) -> None:
    assert bill_of_materials.refused(name) == []
