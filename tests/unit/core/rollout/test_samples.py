"""The counts that are read from the metrics of a model server; the text comes from the server's own code."""

from __future__ import annotations

import pytest

from airflow_mcp.core.rollout.samples import Counts, ReplicaSample, read_sample
from airflow_mcp.exceptions import EvidenceError

TEXT = """\
# HELP airflow_mcp_serving_requests_total Requests by version
# TYPE airflow_mcp_serving_requests_total counter
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="200"} 90.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="500"} 3.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="504"} 1.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="503"} 40.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="400"} 5.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="canary",code="499"} 7.0
airflow_mcp_serving_requests_total{model="fraud",version="8",role="forced",code="500"} 11.0
airflow_mcp_serving_requests_total{model="fraud",version="7",role="champion",code="200"} 1.0e+03
airflow_mcp_serving_requests_total{model="other",version="8",role="canary",code="500"} 99.0
airflow_mcp_serving_request_seconds_bucket{model="fraud",version="8",role="canary",le="0.005"} 60.0
airflow_mcp_serving_request_seconds_bucket{model="fraud",version="8",role="canary",le="0.01"} 80.0
airflow_mcp_serving_request_seconds_bucket{model="fraud",version="8",role="canary",le="+Inf"} 139.0
airflow_mcp_serving_version_ready{model="fraud",version="7"} 1.0
airflow_mcp_serving_version_ready{model="fraud",version="8"} 0.0
airflow_mcp_serving_breaker_open{model="fraud",version="8"} 1.0
airflow_mcp_serving_weight{model="fraud",version="8"} 5.0
airflow_mcp_serving_plan_generation{model="fraud"} 7.0
airflow_mcp_serving_shadow_total{model="fraud",version="8",result="answered"} 50.0
airflow_mcp_serving_shadow_total{model="fraud",version="8",result="model_failed"} 2.0
airflow_mcp_serving_shadow_total{model="fraud",version="8",result="timeout"} 1.0
airflow_mcp_serving_shadow_total{model="fraud",version="8",result="busy"} 30.0
airflow_mcp_serving_shadow_total{model="fraud",version="7",result="answered"} 9.0
some_other_metric{label="with \\"quotes\\", and } braces"} NaN
process_start_time_seconds 1.7645e+09
"""


def sample(text: str = TEXT, model: str = "fraud") -> ReplicaSample:
    return read_sample(text, "10.0.0.1:8000", model, canary="8", champion="7")


def test_counts_what_the_model_is_to_blame_for() -> None:
    found = sample()
    assert (found.counts.canary.answered, found.counts.canary.failed, found.counts.canary.refused) == (94, 4, 5)
    assert found.counts.canary.within == {"5": 60, "10": 80}
    assert found.counts.canary.timed == 139
    assert found.counts.champion.answered == 1000


UNFIT = 'airflow_mcp_serving_unfit_total{model="fraud",version="8",role="canary"} 2.0\n'


def test_a_server_that_does_not_count_what_does_not_fit_is_told_from_one_that_counted_none() -> None:
    assert sample().counts.canary.unfit is None
    assert sample(TEXT + UNFIT).counts.canary.unfit == 2
    unasked = "\n".join(line for line in TEXT.splitlines() if "requests_total" not in line)
    assert sample(unasked).counts.canary.unfit == 0


def test_what_one_replica_does_not_count_is_not_known_of_all() -> None:
    known, unknown = Counts(answered=5, unfit=1), Counts(answered=5, unfit=None)
    assert known.plus(known).unfit == 2
    assert known.plus(unknown).unfit is None
    assert unknown.plus(known, -1).unfit is None


PREDICTED = """\
airflow_mcp_serving_predictions_total{model="fraud",version="8",value="spam"} 3.0
airflow_mcp_serving_predictions_total{model="fraud",version="8",value="other"} 2.0
airflow_mcp_serving_predictions_total{model="fraud",version="7",value="ham"} 9.0
airflow_mcp_serving_prediction_range_total{model="fraud",version="8",from="0.5012"} 4.0
"""


def test_predictions_are_read_for_each_version_and_counted_since_the_split() -> None:
    found = sample(TEXT + PREDICTED).counts
    assert found.canary.classes == {"spam": 3, "other": 2}
    assert (found.canary.ranges, found.champion.classes) == ({"0.5012": 4}, {"ham": 9})
    later = sample(TEXT + PREDICTED.replace(" 3.0", " 8.0")).counts
    assert later.plus(found, -1).canary.classes == {"spam": 5}


def test_copies_count_when_the_version_was_asked() -> None:
    shadow = sample().counts.shadow
    assert (shadow.answered, shadow.failed) == (53, 3)


def test_a_canary_with_servers_of_its_own_counts_as_their_champion() -> None:
    text = TEXT.replace('role="canary"', 'role="champion"')
    found = read_sample(text, "a", "fraud", canary="8", champion="7", canary_role="champion")
    assert (found.counts.canary.answered, found.counts.champion.answered) == (94, 1000)


def test_reads_the_state_of_the_replica() -> None:
    found = sample()
    assert (found.generation, found.started) == (7, 1.7645e9)
    assert found.ready == frozenset({"7"})
    assert found.tripped == frozenset({"8"})
    assert found.weights == {"8": 5.0}


def test_reads_labels_with_quotes() -> None:
    found = sample(TEXT.replace('"fraud"', '"a \\"b\\" \\\\ c"'), 'a "b" \\ c')
    assert found.counts.canary.failed == 4


def test_a_version_that_was_asked_nothing_has_counts_of_0() -> None:
    text = "\n".join(line for line in TEXT.splitlines() if "requests_total" not in line)
    assert sample(text).counts.champion == Counts()
    assert sample(text).counts.canary.answered == 0


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        (TEXT, "fraude", "does not serve 'fraude'"),
        (TEXT.replace("process_start_time_seconds", "started"), "fraud", "does not serve 'fraud'"),
        ("<html>\n", "fraud", "line 1 of its metrics is not in Prometheus' text format"),
        (TEXT.replace("90.0", "many"), "fraud", "line 3 of its metrics is not"),
        (TEXT.replace("90.0", "NaN"), "fraud", "must be a finite count; got nan"),
        (TEXT.replace("90.0", "-1"), "fraud", "must be a finite count; got -1"),
        ("", "fraud", "does not serve"),
    ],
)
def test_refuses_what_is_not_an_answer_of_the_server(text: str, model: str, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        sample(text, model)
