"""Self-contained HTML reports: one look, no script, no network."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **context: Any) -> str:
    """Renders a stage's template, which extends `base.html.jinja` and uses the macros of `charts.html.jinja`.

    Args:
        template: the stage's own template file.
        context: what the template names; all text is escaped.

    Returns:
        One HTML document that needs nothing else.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    return environment.get_template(template.name).render(**context)


def _number(value: float | None) -> str:
    """Writes a number for a reader: 12,345 or 0.0123; a dash for none."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}"
