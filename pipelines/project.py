"""Reads a project: its `pipeline.yaml`, and the files beside it that travel with a run."""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from components.errors import InputError
from components.schema import Schema, columns, parse_schema
from components.settings import HashSplit, Project, evaluation_faults
from components.window_features.columns import schema_faults
from pipelines.reference import leaves

# An argument of a task is one argument of a process, which Linux bounds at 128 KiB.
MAX_FILE_BYTES = 100_000

Location = tuple[int | str, ...]


class ProjectError(InputError):
    """What is wrong in a pipeline.yaml: one line a fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class LoadedProject:
    """A valid project."""

    path: Path
    settings: Project
    schema_text: str
    """Empty: a schema will be inferred."""
    user_module: str
    """Source; empty: none."""

    @property
    def folder(self) -> Path:
        """Where relative paths of the project start."""
        return self.path.parent

    def resolve(self, location: str) -> str:
        """Makes a relative path start at the project's folder; leaves URIs and absolute paths alone."""
        return location if "://" in location else str((self.folder / location).resolve())

    def beside(self, name: str) -> str:
        """Reads a file of the project that travels with a run, from the project's folder.

        Raises:
            InputError: it is not there, too large, or no UTF-8.
        """
        return _read(self.folder / name, f"{self.path}: '{name}'", [])

    @property
    def prediction_columns(self) -> list[str]:
        """The raw columns that evaluation needs beside a prediction: label, key, slices, time of alerts."""
        settings = self.settings
        slices = [column for group in settings.evaluation.slices for column in group]
        budget = settings.evaluation.alert_budget
        times = [budget.time] if budget and budget.time else []
        return list(dict.fromkeys([*settings.task.labels, *settings.data.key, *slices, *times]))


def load_project(path: Path, overrides: Sequence[str] = ()) -> LoadedProject:
    """Reads and checks a project.

    Args:
        path: of the pipeline.yaml, or of its folder.
        overrides: settings that take the place of the file's, e.g. `training.epochs=3`.

    Raises:
        InputError: the file cannot be read.
        ProjectError: it can; every fault with file, line, column and a suggestion.
    """
    path = path / "pipeline.yaml" if path.is_dir() else path
    document = _parse(path)
    try:
        settings = Project.model_validate(_override(YAML(typ="safe").load(path.read_text(encoding="utf-8")), overrides))
    except ValidationError as error:
        raise ProjectError(_faults(path, document, error)) from None
    schema_text = _read_beside(path, document, "schema", settings.schema_file)
    project = LoadedProject(
        path, settings, schema_text, _read_beside(path, document, "user_module", settings.user_module)
    )
    found = [*settings.task_faults(), *evaluation_faults(settings.task, settings.evaluation)]
    if schema_text:
        found += _disagreements(settings, parse_schema(schema_text))
    if found:
        raise ProjectError([f"{_position(path, document, where)}: {what}" for where, what in found])
    return project


def _parse(path: Path) -> CommentedMap:
    if not path.is_file():
        raise InputError(f"'{path}' is no file; give a pipeline.yaml or the folder that holds one")
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except DuplicateKeyError as error:
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise InputError(f"{path}{_mark(error)}: key '{key}' is given twice; keep one") from None
    except MarkedYAMLError as error:
        raise InputError(f"{path}{_mark(error)}: {error.problem or 'not YAML'}; check indentation and quotes") from None
    except YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, CommentedMap):
        raise InputError(f"{path}: no settings in it; it must start with `name: …` (see examples/)")
    return document


def _override(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, value = override.partition("=")
        *parents, last = key.split(".")
        node: Any = document
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not equals or not isinstance(node, dict):
            raise InputError(f"--set {override}: not KEY=VALUE with a key such as training.epochs")
        node[last] = YAML(typ="safe").load(value)
    return document


def _mark(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _read_beside(path: Path, document: CommentedMap, key: str, name: str | None) -> str:
    if name is None:
        return ""
    where, file = _position(path, document, (key,)), path.parent / name
    return _read(file, f"{where}: {key}: '{name}'", [p.name for p in path.parent.iterdir()])


def _read(file: Path, where: str, beside: Sequence[str]) -> str:
    if not file.is_file():
        raise InputError(f"{where} is not beside it{_suggest(file.name, beside)}")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(
            f"{where} has {file.stat().st_size:,} bytes (limit: {MAX_FILE_BYTES:,}, as it travels as an argument); "
            "make it smaller"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    if "{{$" in text:
        raise InputError(f"{where} contains '{{{{$', which Kubeflow Pipelines would replace; write it differently")
    return text


# ---------------------------------------------------------------------------------------- positions


def _faults(path: Path, document: CommentedMap, error: ValidationError) -> list[str]:
    faults = []
    for details in error.errors(include_url=False):
        location = details["loc"]
        if details["type"] == "union_tag_invalid":
            location = (*location, details["ctx"]["discriminator"].strip("'"))
        faults.append(f"{_position(path, document, location)}: {_explain(details)}")
    return faults


def _position(path: Path, document: CommentedMap, location: Location) -> str:
    """Gives file:line:column of the deepest part of a location that is in the file."""
    line, column, node = 0, 0, document
    for step in location:
        if isinstance(node, CommentedMap) and step in node:
            line, column = node.lc.key(step)
        elif isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
            line, column = node.lc.item(step)
        else:
            continue  # the name of a union's branch, or a missing key
        node = node[step]
    return f"{path}:{line + 1}:{column + 1}"


def _explain(details: ErrorDetails) -> str:
    """Says what is wrong with one value, in the words of somebody who writes YAML."""
    model, names = _walk(details["loc"])
    name, context, value = ".".join(names), details.get("ctx", {}), details["input"]
    discriminator = context.get("discriminator", "").strip("'")
    match details["type"]:
        case "extra_forbidden":
            known = [field.alias or key for key, field in model.model_fields.items()] if model else []
            return f"{name}: unknown key{_suggest(names[-1], known) or '; known: ' + ', '.join(known)}"
        case "missing":
            return f"{name}: missing; add it"
        case "literal_error":
            return (
                f"{name}: '{value}' is not one of {context['expected']}{_suggest(value, _quoted(context['expected']))}"
            )
        case "union_tag_invalid":
            expected, tag = context["expected_tags"], context["tag"]
            return f"{name}.{discriminator}: '{tag}' is not one of {expected}{_suggest(tag, _quoted(expected))}"
        case "union_tag_not_found":
            return f"{name}.{discriminator}: missing; add it"
        case "value_error":
            return f"{name}: {context['error']}" if name else str(context["error"])
        case _:
            shown = f" (got: {value!r})" if value is None or isinstance(value, str | int | float) else ""
            return f"{name}: {details['msg'][0].lower()}{details['msg'][1:]}{shown}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _suggest(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _walk(location: Location) -> tuple[type[BaseModel] | None, list[str]]:
    """Follows a location through the models.

    Returns:
        The model that holds its last step, and the steps as the user wrote them: without union branches.
    """
    candidates: list[Any] = [Project]
    holder: type[BaseModel] | None = None
    names: list[str] = []
    for index, step in enumerate(location):
        if step == "[key]":  # the key of a map is wrong, not its value
            continue
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        tagged = [m for m in models if step in _tags(m)] if len(models) > 1 else []
        if tagged and index < len(location) - 1:
            candidates = list(tagged)
            continue
        holder = models[0] if models else None
        if isinstance(step, int):
            names[-1:] = [f"{names[-1]}[{step}]"]
        else:
            names.append(step)
        fields = [f.annotation for m in models for key, f in m.model_fields.items() if step in (key, f.alias)]
        candidates = [leaf for annotation in fields for leaf in leaves(annotation)] if fields else candidates
    return holder, names


def _tags(model: type[BaseModel]) -> set[str]:
    return {
        str(tag)
        for key in ("by", "kind")
        if key in model.model_fields
        for tag in typing.get_args(model.model_fields[key].annotation)
    }


# --------------------------------------------------------------------------- settings against schema


def _disagreements(settings: Project, schema: Schema) -> Iterator[tuple[Location, str]]:
    """Yields where the settings name columns that the schema does not have, or has with another type."""
    known = columns(schema)

    def unknown(where: Location, name: str) -> Iterator[tuple[Location, str]]:
        if name not in known:
            yield where, f"column '{name}' is not in the schema{_suggest(name, known) or '; add it to the schema'}"

    for name in settings.task.labels:
        yield from unknown(("task", "label"), name)
    for index, name in enumerate(settings.data.key):
        yield from unknown(("data", "key", index), name)
    split = settings.data.split
    if isinstance(split, HashSplit):
        for index, name in enumerate(split.key):
            yield from unknown(("data", "split", "key", index), name)
    else:
        yield from unknown(("data", "split", "column"), split.column)
    for kind in ("numeric", "categorical", "datetime", "crosses"):
        for group_index, group in enumerate(getattr(settings.features, kind)):
            for index, name in enumerate(group.columns):
                where = ("features", kind, group_index, "columns", index)
                yield from unknown(where, name)
                if name == settings.task.label:
                    yield where, f"the label '{name}' cannot be a feature; take it out"
                elif name in known and kind == "numeric" and str(known[name].type) == "string":
                    yield where, f"column '{name}' holds text (BYTES); list it under categorical, or mend the schema"
                elif name in known and kind == "datetime" and not known[name].is_time:
                    yield where, f"column '{name}' has no time_domain in the schema; add one, or list it elsewhere"
    for slice_index, names in enumerate(settings.evaluation.slices):
        for index, name in enumerate(names):
            yield from unknown(("evaluation", "slices", slice_index, index), name)
    budget = settings.evaluation.alert_budget
    if budget and budget.time:
        yield from unknown(("evaluation", "alert_budget", "time"), budget.time)
    if settings.window_features:
        yield from schema_faults(settings.window_features, known)
