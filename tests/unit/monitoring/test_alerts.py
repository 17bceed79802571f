"""Each alert fires at its edge and not before, by promtool; and each has a section that says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.paths import DOCS
from tests.support.promql import MONITORING, alerts

RULES = MONITORING / "alerts.yml"
PAGE = "https://github.com/airflow-mcp/airflow-mcp/blob/main/docs/alerts.md"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: Debian's package prometheus has it")
FOUR_DAYS = "x1440"


class Case(NamedTuple):
    """An alert, and the two moments around its edge."""

    alert: str
    series: dict[str, str]
    """Series to its values, in promtool's notation; one every four minutes, or every minute when an edge is below an
    hour: further apart than five they would go stale."""
    labels: dict[str, str]
    """Labels of the alert that fires."""
    quiet: str
    fires: str
    """Empty when it never does."""


MODEL = {"model": "fraud"}
DAY = 86400
CASES = [
    Case("McpMlflowNotAnswering", {'airflow_mcp_up{mlflow_conn_id="m"}': "0x60"}, {"mlflow_conn_id": "m"}, "4m", "5m"),
    Case("McpMlflowNotAnswering", {'airflow_mcp_up{mlflow_conn_id="m"}': "0x3 1x60"}, {}, "10m", ""),
    Case(
        "McpNotScraped",
        {'up{job="airflow-mcp",instance="a"}': "0x60"},
        {"job": "airflow-mcp", "instance": "a"},
        "4m",
        "5m",
    ),
    Case("McpNotScraped", {'up{job="other"}': "1x60"}, {"job": "airflow-mcp"}, "4m", "5m"),
    Case("McpChampionDoesNotLoad", {'airflow_mcp_champion_loads{model="fraud"}': "1 0x60"}, MODEL, "1m", "2m"),
    Case("McpChampionMovedOutside", {'airflow_mcp_champion_moved_outside{model="fraud"}': "0 1x60"}, MODEL, "1m", "2m"),
    Case(
        "McpApprovalLate",
        {'airflow_mcp_approval_deadline_timestamp_seconds{model="fraud",step="lead"}': f"{DAY}{FOUR_DAYS}"},
        {**MODEL, "step": "lead"},
        "20h",
        "20h4m",
    ),
    Case(
        "McpApprovalLate",
        {'airflow_mcp_approval_waiting_timestamp_seconds{model="fraud",step="lead"}': f"0{FOUR_DAYS}"},
        {**MODEL, "step": "lead"},
        "72h",
        "72h4m",
    ),
    Case("McpSweepStale", {"airflow_mcp_last_sweep_timestamp_seconds": "0x60"}, {}, "30m", "31m"),
    Case("McpSweepStale", {'airflow_mcp_source_up{source="airflow"}': "0x60"}, {"source": "airflow"}, "14m", "15m"),
    Case(
        "McpNoWayBack",
        {'airflow_mcp_way_back{model="fraud"}': "0x120", 'airflow_mcp_moves_total{model="fraud"}': "2x120"},
        MODEL,
        "59m",
        "60m",
    ),
    Case(
        "McpNoWayBack",
        {'airflow_mcp_way_back{model="fraud"}': "0x120", 'airflow_mcp_moves_total{model="fraud"}': "1x120"},
        {},
        "90m",
        "",
    ),
    Case(
        "McpDriftNotAnswered",
        {
            'airflow_mcp_drift_verdict{model="fraud",verdict="drifted"}': f"1{FOUR_DAYS}",
            'airflow_mcp_drift_check_timestamp_seconds{model="fraud"}': f"200{FOUR_DAYS}",
            'airflow_mcp_champion_since_timestamp_seconds{model="fraud"}': f"100{FOUR_DAYS}",
        },
        {**MODEL, "verdict": "drifted"},
        "23h56m",
        "24h",
    ),
    Case(
        "McpDriftNotAnswered",
        {
            'airflow_mcp_drift_verdict{model="fraud",verdict="drifted"}': f"1{FOUR_DAYS}",
            'airflow_mcp_drift_check_timestamp_seconds{model="fraud"}': f"200{FOUR_DAYS}",
            'airflow_mcp_champion_since_timestamp_seconds{model="fraud"}': f"300{FOUR_DAYS}",
        },
        {},
        "25h",
        "",
    ),
    Case(
        "McpDriftNotAnswered",
        {
            'airflow_mcp_drift_verdict{model="fraud",verdict="drifted"}': f"1{FOUR_DAYS}",
            'airflow_mcp_retrain_running{model="fraud"}': f"1{FOUR_DAYS}",
        },
        {},
        "25h",
        "",
    ),
    Case(
        "McpDriftCheckOverdue",
        {'airflow_mcp_drift_check_timestamp_seconds{model="fraud"}': f"0{FOUR_DAYS}"},
        MODEL,
        "48h",
        "48h4m",
    ),
    Case("McpRetrainStopped", {'airflow_mcp_retrain_stopped{model="fraud"}': "1x60"}, MODEL, "4m", "5m"),
    Case(
        "McpRetrainNeededLong",
        {'airflow_mcp_retrain_needed_timestamp_seconds{model="fraud"}': f"0{FOUR_DAYS}"},
        MODEL,
        "24h",
        "24h4m",
    ),
    Case(
        "McpRetrainNeededLong",
        {
            'airflow_mcp_retrain_needed_timestamp_seconds{model="fraud"}': f"0{FOUR_DAYS}",
            'airflow_mcp_retrain_paused{model="fraud"}': f"1{FOUR_DAYS}",
        },
        {},
        "25h",
        "",
    ),
    Case(
        "McpTaskFails",
        {'airflow_mcp_tasks_total{model="fraud",operator="TrainModelOperator",outcome="failed"}': "1x9 2x9 3x9 4x30"},
        {**MODEL, "operator": "TrainModelOperator"},
        "25m",
        "31m",
    ),
    Case(
        "McpTaskFails",
        {'airflow_mcp_tasks_total{model="fraud",operator="TrainModelOperator",outcome="refused"}': "1x9 2x9 3x9 4x30"},
        {},
        "31m",
        "",
    ),
]


def notation(values: str) -> str:
    """Return constant stretches as promtool reads them: ``1x9`` becomes ``1+0x9``."""
    return re.sub(r"\b(\d+)x", r"\1+0x", values)


def told(alert: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return the alert as promtool expects it, with the texts filled in."""
    (rule,) = [each for each in alerts() if each["alert"] == alert]
    filled = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
        for name, text in rule["annotations"].items()
    }
    return {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": filled}


def as_test(case: Case) -> dict[str, Any]:
    """Return one test of promtool."""
    expected = [(case.quiet, []), *([(case.fires, [told(case.alert, case.labels)])] if case.fires else [])]
    return {
        "interval": "4m" if any(FOUR_DAYS in values for values in case.series.values()) else "1m",
        "input_series": [{"series": name, "values": notation(values)} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": time, "alertname": case.alert, "exp_alerts": alerts} for time, alerts in expected
        ],
    }


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    command = [PROMTOOL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_promtool
def test_each_alert_fires_at_its_edge_and_not_before(tmp_path: Path) -> None:
    for interval in ("1m", "4m"):
        tests = [each for each in map(as_test, CASES) if each["interval"] == interval]
        document = {"rule_files": [str(RULES)], "evaluation_interval": interval, "tests": tests}
        (tmp_path / f"{interval}.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = promtool("test", "rules", *sorted(tmp_path.glob("*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_an_edge_that_is_wrong(tmp_path: Path) -> None:
    wrong = CASES[0]._replace(quiet="6m")
    document = {"rule_files": [str(RULES)], "tests": [as_test(wrong)]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    assert promtool("test", "rules", tmp_path / "test.yml").returncode != 0


@needs_promtool
def test_prometheus_accepts_the_rules_and_its_configuration(tmp_path: Path) -> None:
    checked = promtool("check", "rules", RULES)
    assert (checked.returncode, "12 rules found" in checked.stdout) == (0, True), checked.stdout + checked.stderr
    text = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "token").write_text("x")
    here = text.replace("/etc/prometheus/monitoring", str(MONITORING)).replace(
        "/secrets/monitoring/metrics_token", str(tmp_path / "token")
    )
    (tmp_path / "prometheus.yml").write_text(here)
    checked = promtool("check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tried_at_its_edge() -> None:
    assert {case.alert for case in CASES if case.fires} == {rule["alert"] for rule in alerts()}
    assert len(alerts()) == 12


def test_every_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{PAGE}#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_section_with_meaning_steps_and_a_command(rule: dict[str, Any]) -> None:
    page = (DOCS / "alerts.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {rule['alert']}\n")[2].partition("\n## ")[0]
    assert "**Meaning.**" in section
    assert "**What to do.**" in section
    assert "```sh\n" in section
    assert f"`{rule['labels']['severity']}`" in section
    assert rule.get("for", "") in section
