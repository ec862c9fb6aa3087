"""The reference tables of the documentation, made from the code."""

import importlib
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from components import images
from components.settings import Project, StageName
from pipelines import bill_of_materials
from pipelines.environments import ROOT

STAGES = typing.get_args(StageName)
"""In the order in which data flows."""

_TABLE = re.compile(r"(<!-- generated: (?P<name>[a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Puts the generated tables between their marks in a page."""
    tables = {"stages": _stages, "settings": _settings, "licences": _licences, "resources": _resources}
    return _TABLE.sub(lambda m: f"{m[1]}{tables[m['name']]()}{m[3]}", text)


def _stages() -> str:
    lines = ["| stage | image | does | gives |", "|---|---|---|---|"]
    for stage in STAGES:
        purpose = (importlib.import_module(f"components.{stage}").__doc__ or "").strip().rstrip(".")
        text = (ROOT / "components" / stage / "component.yaml").read_text(encoding="utf-8")
        spec = next(iter(yaml.safe_load_all(text)))
        (container,) = (executor["container"] for executor in spec["deploymentSpec"]["executors"].values())
        image = container["image"].rpartition("/")[2].partition(":")[0]
        outputs = spec["root"].get("outputDefinitions", {})
        names = [f"`{name}`" for kind in ("artifacts", "parameters") for name in outputs.get(kind, {})]
        lines.append(f"| [`{stage}`](components/{stage}/README.md) | {image} | {purpose} | {', '.join(names) or '–'} |")
    return "\n".join(lines) + "\n"


def _resources() -> str:
    from pipelines.profiles import DEFAULTS  # every command imports this module, and few need Kubernetes

    lines = ["| stage | processors, limit | memory, limit | time |", "|---|---|---|---|"]
    for stage in STAGES:
        profile = DEFAULTS.stages[stage]
        hours = (profile.timeout_seconds or 0) // 3600
        lines.append(
            f"| `{stage}` | {profile.cpu}, {profile.cpu_limit} | {profile.memory}, {profile.memory_limit} | {hours} h |"
        )
    return "\n".join(lines) + "\n"


def _licences() -> str:
    lines = ["| licence | packages |", "|---|---|"]
    found: dict[str, set[str]] = {}
    for image in images.NAMES:
        for licence, names in bill_of_materials.licences(image).items():
            found.setdefault(licence, set()).update(names)
    lines += [f"| {licence} | {', '.join(sorted(names, key=str.lower))} |" for licence, names in sorted(found.items())]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    return "\n".join(_section("", Project, set())) + "\n"


def _section(path: str, model: type[BaseModel], seen: set[str]) -> Iterator[str]:
    """Yields a heading and a table for a model, then for the models inside it; each place once."""
    yield f"## {f'`{path}`' if path else 'pipeline.yaml'}\n"
    yield (model.__doc__ or "").strip() + "\n"
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        name = field.alias or key
        models = [leaf for leaf in leaves(field.annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]
        is_list = typing.get_origin(field.annotation) is list
        place = f"{path}.{name}".lstrip(".") + ("[]" if is_list else "")
        inner += [(f"{place} ({_tag(m)})" if len(models) > 1 else place, m) for m in models]
        description = " ".join((field.description or "").split())
        yield f"| `{name}` | {_type(field.annotation, field.metadata)} | {_default(field)} | {description} |".replace(
            "\n", " "
        )
    yield ""
    for place, inner_model in inner:
        if place not in seen:
            seen.add(place)
            yield from _section(place, inner_model, seen)


def _tag(model: type[BaseModel]) -> str:
    for key in ("by", "kind"):
        if key in model.model_fields:
            return f"{key}: {typing.get_args(model.model_fields[key].annotation)[0]}"
    return model.__name__


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return f"`{_tag(value.__class__)}`" if {"by", "kind"} & set(value.__class__.model_fields) else "see there"
    return f"`{value!r}`" if value != "" else "–"


def _type(annotation: Any, metadata: list[Any]) -> str:
    bounds = [
        f"{sign} {getattr(bound, attribute)}"
        for bound in metadata
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(bound, attribute, None) is not None
    ]
    return ", ".join([_name(annotation), *bounds])


def _name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0], list(arguments[1:]))
    if origin is typing.Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(argument) for argument in arguments if argument is not type(None)))
    if origin is list:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return f"map to {_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true/false", "datetime": "time"}.get(
        annotation.__name__, annotation.__name__
    )


def leaves(annotation: Any) -> Iterator[Any]:
    """Yields the types inside unions, lists, dicts and Annotated."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from leaves(argument)
    else:
        yield annotation
