"""What Prometheus and Grafana are given: components of manifests/suite, as Python objects; and Prometheus itself."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "manifests" / "suite" / "components" / "monitoring"
RUNBOOK = ROOT / "docs" / "monitoring-serving.md"

PUSHED = ROOT / "manifests" / "suite" / "components" / "pushgateway" / "monitoring"


def _rules(component: Path) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((component / "rules.yaml").read_text())["spec"]
    return spec


def alerts_of(rules: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The alerts of a rule file, by name."""
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}


RULES = _rules(COMPONENT)
"""A rule file of Prometheus."""
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ALERTS = alerts_of(RULES)
PUSHED_RULES = _rules(PUSHED)
PUSHED_ALERTS = alerts_of(PUSHED_RULES)
PUSHED_DASHBOARD: dict[str, Any] = json.loads((PUSHED / "lockgate-monitoring.json").read_text())
PUSHED_ENDPOINT: dict[str, Any] = yaml.safe_load((PUSHED / "service-monitor.yaml").read_text())["spec"]["endpoints"][0]
DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "lockgate-serving.json").read_text())
POD_MONITOR: dict[str, Any] = yaml.safe_load((COMPONENT / "pod-monitor.yaml").read_text())["spec"]
ENDPOINT: dict[str, Any] = POD_MONITOR["podMetricsEndpoints"][0]

OF_PROMETHEUS = {"up", "ALERTS"}
_NAME = re.compile(r"\b(?:lockgate:[a-z0-9_:]+|(?:lockgate|process|push)_[a-z_]+|up|ALERTS)\b(?=[{\[ )]|$)")


def absent(program: str) -> str:
    """Tells why a program of Prometheus cannot be run; empty: it can."""
    package = program if program == "prometheus-pushgateway" else "prometheus"
    return "" if shutil.which(program) else f"no {program} on this machine: Debian's package {package} has it"


@dataclass(frozen=True)
class Case:
    """Samples a minute, in promtool's notation; a series may leave out labels that `check` is told."""

    alert: str
    series: dict[str, str]
    at: str
    labels: dict[str, str]
    summary: str = ""
    """Empty: the alert is silent."""

    def __str__(self) -> str:
        return f"{self.alert}-{'fires' if self.summary else 'silent'}"


def check(case: Case, rules: dict[str, Any], common: dict[str, str], folder: Path) -> None:
    """Has promtool say whether an alert does what a case says.

    Args:
        case: the alert, and what Prometheus sees.
        rules: the rule file.
        common: labels of every series, unless it says others.
        folder: for files.
    """
    rule = alerts_of(rules)[case.alert]
    annotations = {**rule["annotations"], "summary": case.summary}
    alert = {"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}
    test = {
        "interval": "1m",
        "input_series": [{"series": _labelled(name, common), "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [alert] if case.summary else []}
        ],
    }
    # Only the group of the alert, which is quicker to test.
    groups = [group for group in rules["groups"] if case.alert in (one.get("alert") for one in group["rules"])]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), "utf-8")
    suite = {"rule_files": [str(folder / "rules.yaml")], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(suite), "utf-8")
    promtool("test", "rules", str(folder / "test.yaml"))


def promtool(*arguments: str) -> None:
    """Runs Prometheus's own tester."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _labelled(series: str, common: dict[str, str]) -> str:
    name, _, given = series.rstrip("}").partition("{")
    labels = dict(re.findall(r"(\w+)=['\"]([^'\"]*)['\"]", given))
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in {**common, **labels}.items()) + "}"


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', expression)))


def dashboard_expressions(dashboard: dict[str, Any] = DASHBOARD) -> Iterator[tuple[str, str]]:
    """Title and expression of each query, and of the variables and annotations, as Grafana sends them."""
    values = {"$__rate_interval": "1m", "$namespace": "lockgate", "$service": "flights", "$model": "flights"}

    def filled(expression: str) -> str:
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        return expression

    for panel in dashboard["panels"]:
        for number, target in enumerate(panel.get("targets", [])):
            yield f"{panel['title']} ({number})", filled(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], filled(annotation["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
            assert found, variable
            yield variable["name"], filled(found[1])
