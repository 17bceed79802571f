"""Versions of a dataset: by name, or the latest."""

from __future__ import annotations

import itertools

import pytest

from airflow_mcp.core.data.dataset import RepositoryData, choose_version, dataset_pin, public_uri, repository_data
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError


@pytest.mark.parametrize(
    ("available", "latest"),
    [
        (["v1", "v2", "v10", "v9"], "v10"),
        (["2026-11-02", "2026-11-01", "2025-12-31"], "2026-11-02"),
        (["1", "10", "9"], "10"),
        (["1.9.0", "1.10.0", "1.2.0"], "1.10.0"),
        (["night-1", "night-2"], "night-2"),
        (["v1"], "v1"),
        (["v1", "v01"], "v1"),
        (["v1", "latest"], "v1"),
        (["v1", ".tmp", "_SUCCESS", "v2.partial/", "-x", ""], "v1"),
    ],
)
def test_the_latest_version_is_the_one_people_would_choose_in_any_order(available: list[str], latest: str) -> None:
    for order in itertools.permutations(available):
        assert choose_version("latest", order, root="data") == latest


def test_a_version_is_chosen_by_name() -> None:
    assert choose_version("v1", ["v1", "v2"], root="data") == "v1"


def test_an_unknown_version_is_refused_with_what_there_is_in_order() -> None:
    with pytest.raises(DatasetError, match=r"data has no data version 'v3'\. Available: v1, v2, v10"):
        choose_version("v3", ["v10", "v2", "v1"], root="data")
    with pytest.raises(DatasetError, match="Available: none"):
        choose_version("v3", [], root="data")


@pytest.mark.parametrize("available", [[], [".tmp"], ["latest"]])
def test_latest_of_nothing_is_refused(available: list[str]) -> None:
    with pytest.raises(DatasetError, match=r"data has no data version\. Expected folders like data/<version>/<file>"):
        choose_version("latest", available, root="data")


@pytest.mark.parametrize("requested", ["", "..", "../v1", "v1/x", "/v1", ".v1", "v 1", "v1\n", "-v1", "v\u0661"])
def test_what_is_not_a_name_is_refused_even_if_it_exists(requested: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        choose_version(requested, [requested, "v1"], root="data")
    assert f"; got {requested!r}" in str(caught.value)


class TestCredentialsInAnAddress:
    def test_user_and_password_are_refused_and_not_repeated(self) -> None:
        with pytest.raises(
            InvalidArgumentError, match="the uri of dataset must not have a user or password in it"
        ) as refused:
            dataset_pin("dataset", {"uri": "s3://key:hush@bucket/train.csv", "version": "v1"})
        assert "hush" not in str(refused.value)

    def test_a_signature_in_the_query_is_not_shown(self) -> None:
        assert public_uri("https://h/train.csv?X-Amz-Signature=abc") == "https://h/train.csv"


class TestDataBesideARepository:
    @pytest.mark.parametrize(
        "data",
        [
            RepositoryData("dvc", "https://h/x", "a b/c.csv", "c" * 40, "store", "git"),
            RepositoryData("lfs", "ssh://git@h/x", "c.csv", "c" * 40),
        ],
    )
    def test_an_address_leads_back_to_it_and_is_public(self, data: RepositoryData) -> None:
        assert repository_data(data.uri) == data
        assert public_uri(data.uri) == data.uri.replace("git@", "")

    @pytest.mark.parametrize(
        "fragment", ["path=a", f"rev={'c' * 40}", f"path=a&rev={'c' * 40}&remote=b", "path=a&rev=main"]
    )
    def test_an_address_that_is_not_complete_is_refused(self, fragment: str) -> None:
        with pytest.raises(InvalidArgumentError, match=r"must be lfs\+<repository>#path=<file>&rev=<full commit id>"):
            repository_data(f"lfs+https://h/x#{fragment}")


@pytest.mark.parametrize("size", ["many", "-1", 1.5])
def test_a_size_that_is_no_number_of_bytes_is_refused(size: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a number of bytes; got"):
        dataset_pin("data", {"uri": "/a.csv", "version": "1", "size": size})


def test_a_pin_keeps_what_a_template_made_text() -> None:
    assert dataset_pin("data", {"uri": "/a.csv", "hash": "sha256:1", "size": "12"}).size == 12
