"""What Prometheus and Grafana are given: manifests/suite/components/monitoring, as Python objects."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "manifests" / "suite" / "components" / "monitoring"
RUNBOOK = ROOT / "docs" / "monitoring-serving.md"

RULES: dict[str, Any] = yaml.safe_load((COMPONENT / "rules.yaml").read_text())["spec"]
"""A rule file of Prometheus."""
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
}
DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "lockgate-serving.json").read_text())
POD_MONITOR: dict[str, Any] = yaml.safe_load((COMPONENT / "pod-monitor.yaml").read_text())["spec"]
ENDPOINT: dict[str, Any] = POD_MONITOR["podMetricsEndpoints"][0]

OF_PROMETHEUS = {"up", "ALERTS"}
_NAME = re.compile(r"\b(?:lockgate:[a-z0-9_:]+|(?:lockgate|process)_[a-z_]+|up|ALERTS)\b(?=[{\[ )]|$)")


def absent(program: str) -> str:
    """Tells why a program of Prometheus cannot be run; empty: it can."""
    return "" if shutil.which(program) else f"no {program} on this machine: Debian's package prometheus has it"


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', expression)))


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of each query, and of the variables and annotations, as Grafana sends them."""
    values = {"$__rate_interval": "1m", "$namespace": "lockgate", "$service": "flights"}

    def filled(expression: str) -> str:
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        return expression

    for panel in DASHBOARD["panels"]:
        for number, target in enumerate(panel.get("targets", [])):
            yield f"{panel['title']} ({number})", filled(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], filled(annotation["expr"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
            assert found, variable
            yield variable["name"], filled(found[1])
