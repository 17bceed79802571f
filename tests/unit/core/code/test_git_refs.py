"""Answers of ``git ls-remote``, and the choice of a commit and of the newest version."""

from __future__ import annotations

import pytest

from airflow_mcp.core.code.git_refs import ResolvedRef, check_question, choose_ref, newest_tag, parse_refs
from airflow_mcp.exceptions import InvalidArgumentError, SourceError

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
URL = "https://example.com/team/models.git"
REFS = "\n".join(
    (
        f"{A}\trefs/heads/main",
        f"{B}\trefs/heads/feature/x",
        f"{C}\trefs/heads/both",
        f"{D}\trefs/tags/both",
        f"{A}\trefs/tags/v1.9",
        f"{C}\trefs/tags/v1.10",
        f"{B}\trefs/tags/v1.10^{{}}",
        f"{D}\trefs/tags/v2.0-rc1",
    )
)


class TestQuestion:
    def test_a_ref_and_a_pattern_together_are_refused(self) -> None:
        with pytest.raises(
            InvalidArgumentError, match=r"revision and tags must not both be given; got 'main' and 'v\*'"
        ):
            check_question("main", "v*")

    @pytest.mark.parametrize("name", ["-x", "a b", "a\nb"])
    def test_what_no_ref_can_be_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidArgumentError, match="revision must be"):
            check_question(name, None)
        with pytest.raises(InvalidArgumentError, match="tags must be"):
            check_question(None, name)


class TestChoice:
    @pytest.mark.parametrize(
        ("ref", "expected"),
        [
            ("main", ResolvedRef(A, "refs/heads/main", is_tag=False)),
            ("feature/x", ResolvedRef(B, "refs/heads/feature/x", is_tag=False)),
            ("v1.9", ResolvedRef(A, "refs/tags/v1.9", is_tag=True)),
            ("v1.10", ResolvedRef(B, "refs/tags/v1.10", is_tag=True)),
            ("refs/heads/both", ResolvedRef(C, "refs/heads/both", is_tag=False)),
            ("refs/tags/both", ResolvedRef(D, "refs/tags/both", is_tag=True)),
            (A, ResolvedRef(A, "refs/tags/v1.9", is_tag=True)),
            (C, ResolvedRef(C, "refs/heads/both", is_tag=False)),
            ("e" * 40, ResolvedRef("e" * 40, "e" * 40, is_tag=False)),
        ],
    )
    def test_a_name_or_commit_is_found(self, ref: str, expected: ResolvedRef) -> None:
        assert choose_ref(REFS, url=URL, ref=ref) == expected

    def test_the_default_branch_is_named(self) -> None:
        answer = f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{B}\trefs/remotes/origin/HEAD"
        for ref in (None, "", "HEAD"):
            assert choose_ref(answer, url=URL, ref=ref) == ResolvedRef(A, "refs/heads/main", is_tag=False)
        assert choose_ref(f"{A}\tHEAD", url=URL).ref == "HEAD"

    def test_an_empty_repository_has_no_default_branch(self) -> None:
        with pytest.raises(SourceError, match="no default branch"):
            choose_ref("", url=URL)

    def test_a_name_of_both_a_branch_and_a_tag_is_refused(self) -> None:
        with pytest.raises(SourceError, match="Write 'refs/heads/both' or 'refs/tags/both'"):
            choose_ref(REFS, url=URL, ref="both")

    @pytest.mark.parametrize(
        ("ref", "hint"),
        [
            ("mian", "Similar names: main"),
            ("zzzzzz", "Known names: both, feature/x, main"),
            ("abcdef1", "by its full id"),
            ("refs/heads/v1.9", r"Similar names: v1\.9"),
        ],
    )
    def test_an_unknown_name_gets_a_hint(self, ref: str, hint: str) -> None:
        with pytest.raises(SourceError, match=hint):
            choose_ref(REFS, url=URL, ref=ref)

    def test_the_newest_matching_tag_is_chosen(self) -> None:
        assert choose_ref(REFS, url=URL, tags="v*") == ResolvedRef(B, "refs/tags/v1.10", is_tag=True)
        with pytest.raises(SourceError, match=r"no tag of .* matches 'w\*'"):
            choose_ref(REFS, url=URL, tags="w*")

    def test_lines_that_are_no_refs_are_passed_over(self) -> None:
        assert parse_refs("warning: x\n\nnot-a-sha\trefs/heads/x\n") == ({}, "")


class TestVersions:
    @pytest.mark.parametrize(
        "ordered",
        [
            ("v1.9", "v1.10", "v2"),
            ("v2.0-alpha", "v2.0-beta2", "v2.0-beta10", "v2.0-rc1", "v2.0"),
            ("1.0rc1", "1.0", "1.0-hotfix1", "1.0.1"),
            ("release-2026-11-09", "release-2026-11-21"),
            ("v1.0.0+build9", "v1.0.1"),
        ],
    )
    def test_versions_are_ordered_as_people_read_them(self, ordered: tuple[str, ...]) -> None:
        for number, newer in enumerate(ordered):
            assert newest_tag(reversed(ordered[: number + 1])) == newer
            assert newest_tag(ordered[: number + 1]) == newer

    def test_a_pre_release_is_chosen_only_when_no_release_matches(self) -> None:
        names = ("v1.9", "v2.0-rc1", "v2.0-rc2")
        assert newest_tag(names, "v*") == "v1.9"
        assert newest_tag(names, "v*-rc*") == "v2.0-rc2"

    def test_digits_in_the_fixed_part_of_a_pattern_do_not_count(self) -> None:
        assert newest_tag(("model2-v9", "model2-v10", "v99"), "model2-v*") == "model2-v10"
        assert newest_tag(("v1", "v1.9", "v10"), "v1*") == "v10"
        assert newest_tag(("v2.9", "v2.10"), "v2.*") == "v2.10"

    def test_a_tag_without_a_number_is_no_version(self) -> None:
        assert newest_tag(("latest", "stable")) is None

    @pytest.mark.parametrize(
        ("resolved", "expected"),
        [
            (ResolvedRef(A, "refs/tags/v1.0", is_tag=True), True),
            (ResolvedRef(A, "refs/tags/v1.0-rc1", is_tag=True), False),
            (ResolvedRef(A, "refs/tags/x1.0", is_tag=True), False),
            (ResolvedRef(A, "refs/tags/vlatest", is_tag=True), False),
            (ResolvedRef(A, "refs/heads/v1.0", is_tag=False), False),
        ],
    )
    def test_a_release_is_a_tag_with_a_full_version(self, resolved: ResolvedRef, expected: bool) -> None:
        assert resolved.is_release("v*") is expected
