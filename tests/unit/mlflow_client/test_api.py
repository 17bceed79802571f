"""Descriptions of operations, driven by hand: which requests they make and what they return."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import FileInfo
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowAuthError,
    MlflowConflictError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
)
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.mlflow_client.wire import ANSWER_TOO_LONG, MlflowRequest, MlflowResponse, Operation, T

INFO = {"run_id": "r1", "experiment_id": "1", "status": "RUNNING", "artifact_uri": "mlflow-artifacts:/1/r1/artifacts"}
MISSING = MlflowNotFoundError("no", 404, "RESOURCE_DOES_NOT_EXIST")


def drive(operation: Operation[T], *answers: dict[str, Any] | bytes | Exception) -> tuple[T, list[MlflowRequest]]:
    """Feed an operation its answers; all of them must be asked for."""
    left, asked = list(answers), [next(operation, None)]
    try:
        while True:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                asked.append(operation.throw(answer))
            elif isinstance(answer, bytes):
                asked.append(operation.send(MlflowResponse("asked", {}, answer)))
            else:
                asked.append(operation.send(MlflowResponse("asked", answer)))
    except StopIteration as stop:
        assert not left
        return stop.value, [request for request in asked if request is not None]


class TestExperiments:
    def test_a_lost_race_is_settled_by_reading_the_winners(self) -> None:
        won = {"experiment": {"experiment_id": "7", "name": "x"}}
        result, asked = drive(mlflow_api.get_or_create_experiment("x"), MISSING, MlflowConflictError("no"), won)
        assert result == "7"
        assert [request.path.rpartition("/")[2] for request in asked] == ["get-by-name", "create", "get-by-name"]

    def test_a_conflict_about_an_experiment_that_is_not_there_stays_an_error(self) -> None:
        with pytest.raises(MlflowConflictError):
            drive(mlflow_api.get_or_create_experiment("x"), MISSING, MlflowConflictError("no"), MISSING)

    def test_a_deleted_experiment_is_refused(self) -> None:
        deleted = {"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "deleted"}}
        with pytest.raises(InvalidArgumentError, match=r"experiment 'x' .id 7. is deleted"):
            drive(mlflow_api.get_or_create_experiment("x"), deleted)


class TestRuns:
    @pytest.mark.parametrize("missing", ["run_id", "experiment_id", "status"])
    def test_a_missing_field_is_a_protocol_error_that_names_it(self, missing: str) -> None:
        info = {key: value for key, value in INFO.items() if key != missing}
        with pytest.raises(MlflowProtocolError, match=f"asked: the answer's field '{missing}'"):
            drive(mlflow_api.get_run("r1"), {"run": {"info": info}})

    @pytest.mark.parametrize("answer", [{}, {"run": []}, {"run": {}}, {"run": {"info": {**INFO, "status": "ODD"}}}])
    def test_an_answer_of_another_shape_is_a_protocol_error(self, answer: dict[str, Any]) -> None:
        with pytest.raises(MlflowProtocolError, match="not MLflow's API"):
            drive(mlflow_api.get_run("r1"), answer)

    def test_numbers_come_as_numbers_or_as_text(self) -> None:
        data = {"metrics": [{"key": "a", "value": "NaN"}, {"key": "b", "value": "-Infinity"}, {"key": "c"}]}
        outputs = {"model_outputs": [{"model_id": "m-2", "step": "2"}, {"model_id": "m-1", "step": "1"}]}
        run, _ = drive(
            mlflow_api.get_run("r1"),
            {"run": {"info": {**INFO, "start_time": "12"}, "data": data, "outputs": outputs}},
        )
        assert str(run.metrics["a"]) == "nan"
        assert run.metrics["b"] == float("-inf")
        assert run.metrics["c"] == 0.0
        assert (run.start_time, run.end_time, run.model_ids) == (12, None, ("m-1", "m-2"))

    def test_creating_is_never_repeatable_and_reading_is(self) -> None:
        _, (create,) = drive(mlflow_api.create_run("1", "a", {"k": "v"}, 5), {"run": {"info": INFO}})
        _, (get,) = drive(mlflow_api.get_run("r1"), {"run": {"info": INFO}})
        assert (create.repeatable, get.repeatable) == (False, True)
        assert create.json == {
            "experiment_id": "1",
            "run_name": "a",
            "start_time": 5,
            "tags": [{"key": "k", "value": "v"}],
        }

    def test_an_unknown_status_is_refused_because_the_server_would_ignore_it(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"must be one of RUNNING.*; got 'DONE'"):
            drive(mlflow_api.update_run("r1", "DONE", None))  # type: ignore[arg-type]


class TestLogBatch:
    def test_little_goes_in_one_request(self) -> None:
        operation = mlflow_api.log_batch("r", {"m": float("inf")}, {"p": "1"}, {"t": "2"}, 5)
        _, (request,) = drive(operation, {})
        assert request.json == {
            "run_id": "r",
            "params": [{"key": "p", "value": "1"}],
            "tags": [{"key": "t", "value": "2"}],
            "metrics": [{"key": "m", "value": "Infinity", "timestamp": 5, "step": 0}],
        }

    def test_much_is_split_at_mlflows_limits(self) -> None:
        metrics = {f"m{i}": float(i) for i in range(2001)}
        params, tags = {f"p{i}": "x" for i in range(101)}, {f"t{i}": "x" for i in range(200)}
        _, asked = drive(mlflow_api.log_batch("r", metrics, params, tags, 5), *[{}] * 7)
        sizes = [
            (name, len(items)) for request in asked for name, items in (request.json or {}).items() if name != "run_id"
        ]
        assert sizes == [
            *(("params", 100), ("params", 1), ("tags", 100), ("tags", 100)),
            *(("metrics", 1000), ("metrics", 1000), ("metrics", 1)),
        ]

    def test_nothing_to_log_sends_nothing(self) -> None:
        assert list(mlflow_api.set_tags("r", {})) == []

    def test_metrics_without_a_time_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="timestamp_ms must be set for 1 metrics"):
            drive(mlflow_api.log_batch("r", {"m": 1.0}))


class TestPaging:
    def test_pages_are_followed_until_the_wanted_number(self) -> None:
        page = {"runs": [{"info": INFO}] * 2, "next_page_token": "p2"}
        last = {"runs": [{"info": INFO}] * 2, "next_page_token": "p3"}
        runs, asked = drive(mlflow_api.search_runs(["1"], max_results=3), page, last)
        assert len(runs) == 3
        assert [(request.json or {}).get("page_token") for request in asked] == [None, "p2"]
        assert [(request.json or {})["max_results"] for request in asked] == [3, 1]

    def test_a_token_that_repeats_itself_does_not_loop_for_ever(self) -> None:
        page = {"files": [{"path": "a"}], "next_page_token": "same"}
        with pytest.raises(MlflowProtocolError, match="repeats itself"):
            drive(mlflow_api.list_artifacts("r"), page, page)

    def test_pages_become_smaller_when_an_answer_is_too_long(self) -> None:
        too_long = MlflowError("too long", 200, ANSWER_TOO_LONG)
        first = {"registered_models": [{"name": "a"}], "next_page_token": "t"}
        found, asked = drive(
            mlflow_registry_api.search_registered_models(), too_long, first, too_long, {"registered_models": []}
        )
        assert [model.name for model in found] == ["a"]
        sizes = [(dict(request.params)["max_results"], dict(request.params).get("page_token")) for request in asked]
        assert sizes == [("1000", None), ("125", None), ("125", "t"), ("15", "t")]

    def test_one_item_that_is_too_long_is_an_error_that_refuses_nobody(self) -> None:
        too_long = MlflowError("too long", 200, ANSWER_TOO_LONG)
        with pytest.raises(MlflowError, match="too long"):
            drive(mlflow_registry_api.search_registered_models(), *[too_long] * 5)

    def test_another_error_does_not_make_pages_smaller(self) -> None:
        with pytest.raises(MlflowError, match="ill"):
            drive(mlflow_registry_api.search_registered_models(), MlflowError("ill", 500))

    def test_a_listing_without_limit_reads_every_page(self) -> None:
        page = {"files": [{"path": "a", "is_dir": True}], "next_page_token": "2"}
        files, _ = drive(mlflow_api.list_artifacts("r"), page, {"files": [{"path": "b", "file_size": "3"}]})
        assert files == [FileInfo("a", True), FileInfo("b", False, 3)]

    @pytest.mark.parametrize("ids", [[], "12"])
    def test_a_search_needs_a_list_of_experiments(self, ids: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="experiment_ids"):
            drive(mlflow_api.search_runs(ids))

    def test_a_search_for_no_results_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="max_results must be 1 or more; got 0"):
            drive(mlflow_api.search_runs(["1"], max_results=0))


class TestArtifacts:
    @pytest.mark.parametrize("path", ["", "/a", "a/../b", "..", "a//b", "a/", "./a", "a%2fb", "a#b", "a\\b", "a\nb"])
    def test_a_path_that_could_leave_the_root_is_refused(self, path: str) -> None:
        for operation in (mlflow_api.download_artifact("r", path), mlflow_api.upload_artifact("r", path, b"")):
            with pytest.raises(InvalidArgumentError, match="artifact path"):
                drive(operation)

    def test_upload_goes_to_the_runs_root_and_is_percent_encoded(self) -> None:
        operation = mlflow_api.upload_artifact("r1", "a b/c+d?.txt", b"x", "text/plain")
        _, (_, put) = drive(operation, {"run": {"info": INFO}}, b"{}")
        assert put.path == "api/2.0/mlflow-artifacts/artifacts/1/r1/artifacts/a%20b/c%2Bd%3F.txt"
        assert (put.content, put.content_type, put.repeatable) == (b"x", "text/plain", True)

    @pytest.mark.parametrize("uri", ["s3://bucket/1", "/data/1", "mlflow-artifacts://other:1/1", ""])
    def test_upload_elsewhere_is_refused_with_how_to_start_the_server(self, uri: str) -> None:
        with pytest.raises(InvalidArgumentError, match="--serve-artifacts"):
            drive(mlflow_api.upload_artifact("r1", "a", b""), {"run": {"info": {**INFO, "artifact_uri": uri}}})

    def test_an_upload_answered_by_a_page_has_not_happened(self) -> None:
        with pytest.raises(MlflowProtocolError, match="answer to the upload is not empty"):
            drive(mlflow_api.upload_artifact("r1", "a", b""), {"run": {"info": INFO}}, b"<html>")


class TestFindArtifact:
    LISTED = {"files": [{"path": "gate/report.json", "file_size": 3}, {"path": "gate/more", "is_dir": True}]}

    def test_a_file_that_is_listed_is_downloaded(self) -> None:
        found, asked = drive(mlflow_api.find_artifact("r1", "gate/report.json", max_bytes=5), self.LISTED, b"abc")
        assert found == b"abc"
        assert [request.path.rpartition("/")[2] for request in asked] == ["list", "get-artifact"]
        assert (dict(asked[0].params)["path"], asked[1].max_bytes) == ("gate", 5)

    @pytest.mark.parametrize("path", ["gate/other.json", "gate/report", "gate/more"])
    def test_a_file_that_is_not_listed_is_none_without_a_download(self, path: str) -> None:
        found, asked = drive(mlflow_api.find_artifact("r1", path), self.LISTED)
        assert (found, len(asked)) == (None, 1)

    def test_a_missing_run_has_no_artifacts(self) -> None:
        assert drive(mlflow_api.find_artifact("r1", "gate/report.json"), MISSING)[0] is None

    def test_of_many_files_each_folder_is_listed_once_and_only_where_its_parent_has_it(self) -> None:
        paths = [
            "gate/report.json",
            "copied/gate/report.json",
            "gate/more",
            "gate/other.json",
            "top.json",
            "top.json/a",
        ]
        root = {"files": [{"path": "gate", "is_dir": True}, {"path": "top.json", "file_size": 1}]}
        found, asked = drive(mlflow_api.existing_artifacts("r1", paths), root, self.LISTED)
        assert found == ["gate/report.json", "top.json"]
        assert [dict(request.params).get("path", "") for request in asked] == ["", "gate"]

    def test_of_a_missing_run_no_file_exists(self) -> None:
        found, asked = drive(mlflow_api.existing_artifacts("r1", ["a/b", "c/d"]), MISSING)
        assert (found, len(asked)) == ([], 1)

    @pytest.mark.parametrize("listing", [mlflow_api.list_artifacts, mlflow_api.list_model_artifacts])
    def test_a_listing_that_is_too_long_is_not_requested_again(self, listing: Any) -> None:
        too_long = MlflowError("too long", 200, ANSWER_TOO_LONG)
        with pytest.raises(MlflowError, match="too long"):
            drive(listing("r1"), too_long)

    @pytest.mark.parametrize("error", [MlflowError("no", 500, "INTERNAL_ERROR"), MlflowAuthError("no", 403)])
    def test_an_error_is_never_taken_for_a_missing_file(self, error: MlflowError) -> None:
        with pytest.raises(type(error)):
            drive(mlflow_api.find_artifact("r1", "gate/report.json"), error)
        with pytest.raises(type(error)):
            drive(mlflow_api.find_artifact("r1", "gate/report.json"), self.LISTED, error)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("a", "'a'"),
        ("it's", '"it\'s"'),
        ('say "a"', "'say \"a\"'"),
        ("ü ", "'ü '"),
        ("a\\b", r"'a\b'"),
        ("a\\'b", r'"a\'b"'),
    ],
)
def test_a_filter_value_is_quoted_with_the_quotes_it_does_not_contain(value: str, quoted: str) -> None:
    assert mlflow_api.filter_value(value) == quoted


@pytest.mark.parametrize("value", ["both ' and \"", "ends with \\", "it's \\", "\\"])
def test_a_filter_value_that_could_break_out_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be used in an MLflow filter"):
        mlflow_api.filter_value(value)


class TestRegistry:
    def test_an_unset_alias_of_an_existing_model_is_none(self) -> None:
        unset = MlflowError("no", 400, "INVALID_PARAMETER_VALUE")
        model = {"registered_model": {"name": "m", "aliases": [{"alias": "challenger", "version": "2"}]}}
        result, _ = drive(mlflow_registry_api.get_model_version_by_alias("m", "champion"), unset, model)
        assert result is None

    def test_an_alias_that_is_set_but_cannot_be_read_is_not_none(self) -> None:
        unset = MlflowError("no", 400, "INVALID_PARAMETER_VALUE")
        model = {"registered_model": {"name": "m", "aliases": [{"alias": "champion", "version": "2"}]}}
        with pytest.raises(MlflowError, match="no"):
            drive(mlflow_registry_api.get_model_version_by_alias("m", "champion"), unset, model)

    def test_another_failure_than_missing_is_never_none(self) -> None:
        with pytest.raises(MlflowError, match="down"):
            drive(mlflow_registry_api.get_model_version_by_alias("m", "champion"), MlflowError("down", 500, None))

    @pytest.mark.parametrize(
        "delete", [mlflow_registry_api.delete_alias, mlflow_registry_api.delete_registered_model_tag]
    )
    def test_deleting_what_is_gone_is_fine_when_the_model_exists(
        self, delete: Callable[[str, str], Operation[None]]
    ) -> None:
        drive(delete("m", "champion"), MISSING, {"registered_model": {"name": "m"}})
        with pytest.raises(MlflowNotFoundError):
            drive(delete("m", "champion"), MISSING, MISSING)

    @pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V12", "", "a b", "a/b"])
    def test_a_reserved_or_malformed_alias_is_refused(self, alias: str) -> None:
        for operation in (
            mlflow_registry_api.set_alias("m", alias, "1"),
            mlflow_registry_api.delete_alias("m", alias),
            mlflow_registry_api.get_model_version_by_alias("m", alias),
        ):
            with pytest.raises(InvalidArgumentError, match="alias"):
                drive(operation)  # type: ignore[arg-type]

    @pytest.mark.parametrize("stage", ["production", "Live", ""])
    def test_a_stage_is_one_of_mlflows_four(self, stage: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="must be one of None, Staging, Production, Archived; got "):
            drive(mlflow_registry_api.transition_stage("m", "1", stage))

    @pytest.mark.parametrize("version", ["", "1.0", "-1", "latest", 1, "²"])
    def test_a_version_is_digits_as_text(self, version: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="must be digits as text"):
            drive(mlflow_registry_api.get_model_version("m", version))

    def test_all_registered_models_are_read_page_by_page(self) -> None:
        pages = {"registered_models": [{"name": "a"}], "next_page_token": "t"}, {"registered_models": [{"name": "b"}]}
        found, asked = drive(mlflow_registry_api.search_registered_models("name LIKE 'x%'"), *pages)
        assert [model.name for model in found] == ["a", "b"]
        assert [dict(request.params).get("page_token") for request in asked] == [None, "t"]
        assert {dict(request.params)["filter"] for request in asked} == {"name LIKE 'x%'"}

    @pytest.mark.parametrize("wanted", [{"alias": "champion"}, {"version": "3"}])
    def test_a_version_that_is_waited_for_may_be_missing_with_its_model(self, wanted: dict[str, str]) -> None:
        answers = [MISSING, MISSING] if "alias" in wanted else [MISSING]
        assert drive(mlflow_registry_api.find_model_versions("fraud", **wanted), *answers)[0] == []

    @pytest.mark.parametrize("wanted", [{"alias": "champion"}, {"version": "3"}])
    def test_basic_auths_403_for_a_missing_model_is_a_missing_version(self, wanted: dict[str, str]) -> None:
        refused = MlflowAuthError("no", 403, "PERMISSION_DENIED")
        operation = mlflow_registry_api.find_model_versions("fraud", **wanted)
        assert drive(operation, refused, {"registered_models": []})[0] == []
        with pytest.raises(MlflowAuthError):
            drive(
                mlflow_registry_api.find_model_versions("fraud", **wanted),
                refused,
                {"registered_models": [{"name": "fraud"}]},
            )

    @pytest.mark.parametrize("wanted", [{"alias": "champion"}, {"version": "3"}, {}])
    def test_a_failure_to_look_is_not_taken_for_a_missing_version(self, wanted: dict[str, str]) -> None:
        with pytest.raises(MlflowError):
            drive(mlflow_registry_api.find_model_versions("fraud", **wanted), MlflowError("ill", 500))

    def test_creating_in_the_registry_is_never_repeatable(self) -> None:
        model = {"registered_model": {"name": "m"}}
        version = {"model_version": {"name": "m", "version": "1", "status": "READY", "source": "models:/m-1"}}
        _, (first,) = drive(mlflow_registry_api.create_registered_model("m"), model)
        made, (second,) = drive(mlflow_registry_api.create_model_version("m", "models:/m-1"), version)
        assert not first.repeatable
        assert not second.repeatable
        assert made.model_id == (second.json or {})["model_id"] == "m-1"

    def test_few_versions_are_read_one_by_one_and_many_with_one_listing(self) -> None:
        def told(number: int) -> dict[str, Any]:
            return {"name": "m", "version": str(number), "status": "READY"}

        few, asked = drive(mlflow_registry_api.read_model_versions("m", {3, 7}), {"model_version": told(7)}, MISSING)
        assert ([each.version for each in few], len(asked)) == (["7"], 2)
        listing = {"model_versions": [told(number) for number in (9, 8, 6, 5, 4)]}
        many, asked = drive(
            mlflow_registry_api.read_model_versions("m", {4, 5, 6, 7}), {"model_versions": [told(9)]}, listing
        )
        assert [each.version for each in many] == ["6", "5", "4"]
        assert [dict(request.params)["max_results"] for request in asked] == ["1", "6"]
        one_by_one = [{"model_version": told(number)} for number in (4, 3, 2, 1)]
        old, asked = drive(
            mlflow_registry_api.read_model_versions("m", {1, 2, 3, 4}), {"model_versions": [told(10_000)]}, *one_by_one
        )
        assert ([each.version for each in old], len(asked)) == (["4", "3", "2", "1"], 5)

    @pytest.mark.parametrize(
        ("names", "prefixes", "filter"),
        [
            (["a"], [], ["name = 'a'"]),
            (["b", "a"], [], ["name IN ('a', 'b')"]),
            ([], ["a-"], ["name LIKE 'a-%'"]),
            ([], [""], [""]),
            ([], [], [""]),
            (["a"], ["c", "b"], ["name = 'a'", "name LIKE 'b%'", "name LIKE 'c%'"]),
            (["it's"], [], [""]),
        ],
    )
    def test_a_filter_of_names_asks_for_no_more_unless_that_cannot_be_written(
        self, names: list[str], prefixes: list[str], filter: list[str]
    ) -> None:
        assert list(mlflow_registry_api.names_filters(names, prefixes)) == filter

    @pytest.mark.parametrize(("count", "length"), [(51, 4), (1000, 8), (120, 200), (3, 3000)])
    def test_many_or_long_names_are_asked_for_in_several_searches(self, count: int, length: int) -> None:
        names = [f"{number:0{length}}" for number in range(count)]
        filters = mlflow_registry_api.names_filters(names, [])
        assert [name for filter in filters for name in re.findall(r"'(\d+)'", filter)] == names
        assert all(len(filter) < 3000 or filter.startswith("name = ") for filter in filters)
        assert len(filters) <= 1 + count * max(length / 2500, 1 / 50) * 1.2
