"""The report: what the server was asked, and how it answered."""

from pathlib import Path

from components.check_serving.result import ServingResult
from components.reports import render


def page(result: ServingResult) -> str:
    """Renders the report of a check."""
    return render(Path(__file__).parent / "report.html.jinja", result=result)
