"""The report: what was done to the service, and why it ended so."""

from pathlib import Path

from components.deploy_model.decision import Decision
from components.reports import render


def page(decision: Decision) -> str:
    """Renders the report of a deployment."""
    return render(Path(__file__).parent / "report.html.jinja", decision=decision)
