"""YAML text as values with their places: what is refused, and where."""

from __future__ import annotations

import pytest
import yaml

from airflow_mcp.core.pipeline.file import document
from airflow_mcp.core.pipeline.file.document import MAX_BYTES, Place, find, plain, read_document
from airflow_mcp.exceptions import SpecProblem


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_LOADER", yaml.CSafeLoader if request.param == "libyaml" else yaml.SafeLoader)


def read(text: str | bytes) -> tuple[object, list[str]]:
    problems: list[SpecProblem] = []
    node = read_document(text.encode() if isinstance(text, str) else text, "f", problems)
    return (None if node is None else plain(node)), list(map(str, problems))


@pytest.mark.usefixtures("parser")
class TestWhatIsRead:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1),
            ("-3", -3),
            ("1e-3", 0.001),
            (".5", 0.5),
            ("2.", 2.0),
            ("0x1F", 31),
            ("0o17", 15),
            ("true", True),
            ("False", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("'1'", "1"),
            ('"yes"', "yes"),
            ("2026-01-31", "2026-01-31"),
            ("12:30:45", "12:30:45"),
            ("tensorflow:2.12", "tensorflow:2.12"),
            ("1.2.3", "1.2.3"),
            ("y", "y"),
            ('"a\\tb"', "a\tb"),
        ],
    )
    def test_plain_values_mean_what_yaml_1_2_says(self, text: str, value: object) -> None:
        assert read(f"a: {text}\n") == ({"a": value}, [])

    def test_on_is_a_key_like_any_other(self) -> None:
        assert read("on: [failure]\nno: 1\n") == ({"on": ["failure"], "no": 1}, [])

    def test_every_value_and_key_knows_its_place(self) -> None:
        node = read_document(b"a:\n  - {b: 1,  c: text}\n", "f", [])
        assert node is not None
        found, walked = find(node, ("a", 0, "c"))
        assert (found.content, found.place, found.key_place) == ("text", Place("f", 2, 16), Place("f", 2, 13))
        assert walked == ("a", 0, "c")
        assert find(node, ("a", "tag", 0, "c", "deeper"))[1] == ("a", 0, "c")

    def test_a_byte_order_mark_and_windows_line_ends_are_read(self) -> None:
        assert read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == ({"a": 1, "b": 2}, [])


@pytest.mark.usefixtures("parser")
class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a: 1\na: 2\n", "f:2:1: a: the key is here twice, first in line 1"),
            ("a:\n  b: 1\n  b: 2\n", "f:3:3: a.b: the key is here twice, first in line 2"),
            ("a: yes\n", "f:1:4: a: yes is ambiguous in YAML. Write true, or 'yes' for the text"),
            ("a: [Off]\n", "f:1:5: a[0]: Off is ambiguous in YAML. Write false, or 'Off' for the text"),
            ("a: 0123\n", "f:1:4: a: 0123 is ambiguous in YAML. Write 123 for the number"),
            ("a: 1_000\n", "f:1:4: a: 1_000 is ambiguous in YAML. Write 1000 for the number"),
            ("a: .nan\n", "f:1:4: a: must be a finite number; got .nan"),
            ("a: -.inf\n", "f:1:4: a: must be a finite number; got -.inf"),
            ("a: 1e999\n", "f:1:4: a: must be a finite number; got 1e999"),
            (f"a: {'9' * 5000}\n", "f:1:4: a: must have at most 100 digits; got 5000"),
            ("a: &x 1\n", "f:1:4: a: anchor &x is refused"),
            ("a: !!python/object/apply:os.getcwd []\n", "f:1:4: a: tag tag:yaml.org,2002:python/object/apply:os.getc"),
            ("a: !env HOME\n", "f:1:4: a: tag !env is refused"),
            ("a:\n  <<: {b: 1}\n", "f:2:3: a: merge keys (<<) are refused"),
            ("1: a\n", "f:1:1: a key must be text; got a whole number. Write '1' in quotes"),
            ("true: a\n", "f:1:1: a key must be text; got a boolean"),
            ("null: a\n", "f:1:1: a key must be text; got nothing"),
            ("? [a]\n: b\n", "f:1:3: a key must be text; got a list"),
            ("? {a: 1}\n: b\n", "f:1:3: a key must be text; got a mapping"),
            ("\ta: 1\n", "f:1:1: there is a tab. Use spaces"),
            ("a:\n  - b\n \t- c\n", "f:3:2: there is a tab. Use spaces"),
            ("a: 'x\ty'\n", "f:1:6: there is a tab. Use spaces"),
            ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins here. Keep one document in a file"),
            ("a: 1\n b: 2\n", "f:2:3: this is not YAML: there is a colon where none may be"),
            ("a: {b: 1\n", "f:2:1: a: this is not YAML: "),
            ("a: %x\n", "f:1:4: a: this is not YAML: found character"),
            ("", "f:1:1: the file is empty"),
            ("# only a comment\n", "f:1:1: the file is empty"),
            ("a: x\x00y\n", "f:1:5: character U+0000 cannot be printed"),
            ("a: 1\nb: \x1b[31m\n", "f:2:4: character U+001B cannot be printed"),
        ],
    )
    def test_trouble_is_named_with_its_place(self, text: str, problem: str) -> None:
        problems = read(text)[1]
        assert len(problems) == 1, problems
        assert problems[0].startswith(problem)

    def test_bytes_that_are_not_utf_8(self) -> None:
        assert read("a: 1\nb: ü\n".encode("latin-1")) == (
            None,
            ["f:2:4: byte 0xfc is not UTF-8. Save the file as UTF-8"],
        )
        assert read("a: 1".encode("utf-16"))[1] == ["f:1:1: byte 0xff is not UTF-8. Save the file as UTF-8"]

    def test_a_file_that_is_too_big_is_not_parsed(self) -> None:
        data = b"a: 1\n" * (2 * MAX_BYTES)
        assert read(data) == (None, [f"f:1:1: the file must have at most {MAX_BYTES} bytes; got {len(data)}"])

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
    def test_nesting_ends_at_fifty_levels(self, opening: str) -> None:
        value, problems = read(opening * 100_000)
        assert value is None
        assert problems[0].endswith("values are nested deeper than 50 levels")

    def test_fifty_levels_are_read(self) -> None:
        assert read("[" * 50 + "]" * 50)[1] == []

    def test_an_alias_bomb_is_refused_without_being_expanded(self) -> None:
        bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
        problems = read(bomb)[1]
        assert len(problems) == 30 + 29 * 9
        assert problems[1] == "f:2:5: a1: anchor &a1 is refused. Repeat the value, or put it into defaults.yaml"

    def test_all_problems_are_reported_together(self) -> None:
        problems = read("a: yes\na: 1\nb: !x 1\n2: c\n")[1]
        assert [problem.split(": ")[0] for problem in problems] == ["f:1:4", "f:2:1", "f:3:4", "f:4:1"]


def test_half_of_a_character_is_refused_by_either_parser(parser: None) -> None:
    assert read('a: "\\ud800"\n')[0] is None
