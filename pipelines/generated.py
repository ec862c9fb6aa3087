"""The files that are generated from the code and committed: a test holds them up to date."""

import importlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp import compiler

from components.settings import Project
from pipelines.environments import ROOT
from pipelines.picture import draw
from pipelines.profiles import DEFAULTS, configured
from pipelines.reference import with_tables

_YAML = compiler.Compiler()


def generate(check: bool = False) -> list[Path]:
    """Brings every generated file up to date.

    Args:
        check: change nothing.

    Returns:
        The files that were not up to date.
    """
    stale = []
    for path, content in contents():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            stale.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
    return stale


def contents() -> Iterator[tuple[Path, str]]:
    """Yields every generated file with what it should hold."""
    for component in sorted((ROOT / "components").glob("*/component.py")):
        stage = component.parent.name
        function = getattr(importlib.import_module(f"components.{stage}.component"), stage)
        yield component.with_suffix(".yaml"), _compiled(function)
    for name in ("training", "tuning", "monitoring", "batch_prediction"):
        text = configured(_compiled(getattr(importlib.import_module(f"pipelines.{name}"), name)), DEFAULTS)
        yield ROOT / "pipelines" / "compiled" / f"{name}.yaml", text
        yield ROOT / "docs" / f"{name}.svg", draw(text)
    docs = (ROOT / "docs" / f"{name}.md" for name in ("configuration", "images", "stages-on-a-cluster"))
    for page in (ROOT / "README.md", *docs):
        yield page, with_tables(page.read_text(encoding="utf-8"))
    yield ROOT / "pipelines" / "schema.json", json.dumps(Project.model_json_schema(), indent=1) + "\n"


def _compiled(component: Any) -> str:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "compiled.yaml"
        _YAML.compile(component, str(path))
        return path.read_text(encoding="utf-8")
