"""Cobertura XML: real reports, reports of others, and XML that is made to harm."""

from __future__ import annotations

import pytest

from airflow_mcp.core.gate.rules.cobertura import Line, branch_share, line_share, parse_cobertura
from airflow_mcp.exceptions import EvidenceError
from tests.support.paths import REPORTS

REPORT = (REPORTS / "coverage.xml").read_bytes()


def report(lines: str, head: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{head}<coverage><packages><package><classes><class filename="a.py"><lines>{lines}'
        "</lines></class></classes></package></packages></coverage>"
    ).encode()


def test_a_report_of_coverage_py_is_counted_as_coverage_py_counts_it() -> None:
    coverage = parse_cobertura(REPORT)
    assert line_share(coverage) == (9, 12)  # lines-covered and lines-valid of its first element
    assert branch_share(coverage) == (2, 4)
    assert coverage.files["scale.py"][7] == Line(True, 1, 2)
    assert coverage.files["scale.py"][8] == Line(False)
    assert coverage.roots == ["/home/ci/scale"]


def test_a_line_that_is_listed_twice_counts_once_and_is_covered_if_one_is() -> None:
    line = '<line number="1" hits="{}"/>'
    coverage = parse_cobertura(report(line.format(0) + line.format(3) + line.format(0)))
    assert line_share(coverage) == (1, 1)
    assert str(line_share(coverage)) == "1 of 1"


def test_a_document_type_that_is_only_named_is_let_be() -> None:
    head = '<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">'
    assert line_share(parse_cobertura(report('<line number="1" hits="1"/>', head))) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        REPORT[:500],
        REPORT + b"<more/>",
        b"<html/>",
        b'{"coverage": 1}',
        report('<line number="x" hits="1"/>'),
        report('<line number="1"/>'),
        report('<line number="1" hits="1" branch="true"/>'),
        report('<line number="1" hits="1" branch="true" condition-coverage="150% (3/2)"/>'),
        b"<coverage><class/></coverage>",
        b"<coverage>" + b"<a>" * 100 + b"</a>" * 100 + b"</coverage>",
        b'<?xml version="1.0" encoding="x-unknown"?><coverage/>',
        "<coverage/>".encode("utf-16")[:-3],
    ],
)
def test_what_is_no_whole_report_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError):
        parse_cobertura(content)


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE coverage [<!ENTITY a "b">]>',
        '<!DOCTYPE coverage [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE coverage [<!ENTITY % a SYSTEM "http://127.0.0.1:1/x"> %a;]>',
        "<!DOCTYPE coverage [<!ELEMENT coverage ANY>]>",
    ],
    ids=["entity", "file", "parameter", "subset"],
)
def test_xml_that_declares_anything_is_refused(head: str) -> None:
    with pytest.raises(EvidenceError, match="which is refused: no coverage report needs"):
        parse_cobertura(report('<line number="1" hits="1"/>', head))


def test_entities_that_multiply_are_refused_at_once() -> None:
    bomb = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))
    with pytest.raises(EvidenceError):
        parse_cobertura(f"<!DOCTYPE coverage [{bomb}]><coverage>&e29;</coverage>".encode())
