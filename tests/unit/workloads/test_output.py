"""The workload's output in the log: whole lines, no secrets, bounded."""

from __future__ import annotations

import pytest

from airflow_mcp.workloads.output import LINE_LIMIT, TAIL_LINES, OutputLog


class Lines:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def info(self, msg: str, /, *args: object) -> None:
        self.lines.append(msg % args)

    def warning(self, msg: str, /, *args: object) -> None:
        self.warnings.append(msg % args)


def logged(*chunks: bytes, limit: int = 10**6, secrets: tuple[str, ...] = ()) -> tuple[Lines, OutputLog]:
    log = Lines()
    output = OutputLog(log, limit_bytes=limit, secrets=secrets)
    for chunk in chunks:
        output.feed(chunk)
    output.close()
    return log, output


def test_a_line_is_logged_when_it_ends_and_not_before() -> None:
    log = Lines()
    output = OutputLog(log, limit_bytes=100)
    output.feed(b"first\nsec")
    assert log.lines == ["first"]
    output.feed(b"ond\n")
    assert log.lines == ["first", "second"]


def test_a_last_line_without_line_end_is_logged_on_close() -> None:
    assert logged(b"a\nb")[0].lines == ["a", "b"]


@pytest.mark.parametrize(
    "chunks", [(b"a\r\nb\rc\n",), (b"a\r", b"\nb\r", b"c\n"), tuple(bytes([byte]) for byte in b"a\r\nb\rc\n")]
)
def test_line_feed_carriage_return_and_both_end_a_line_wherever_chunks_are_cut(chunks: tuple[bytes, ...]) -> None:
    assert logged(*chunks)[0].lines == ["a", "b", "c"]


def test_an_empty_line_stays_an_empty_line() -> None:
    assert logged(b"a\n\nb\n")[0].lines == ["a", "", "b"]


def test_percent_signs_are_not_formatted() -> None:
    assert logged(b"100%s %d\n")[0].lines == ["100%s %d"]


def test_a_character_cut_between_two_chunks_is_whole_in_the_log() -> None:
    data = "größe\n".encode()
    assert logged(data[:3], data[3:])[0].lines == ["größe"]


def test_undecodable_bytes_are_replaced() -> None:
    assert logged(b"a\xff\xfeb\n")[0].lines == ["a��b"]


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    assert logged(b"x" * LINE_LIMIT + b"\n")[0].lines == ["x" * LINE_LIMIT]


def test_a_longer_line_is_cut_with_a_note_and_the_next_line_is_whole() -> None:
    log, _ = logged(b"x" * LINE_LIMIT, b"y" * 10**6, b"\nnext\n")
    assert log.lines[0].startswith("x" * LINE_LIMIT + " [line cut")
    assert "yy" not in log.lines[0]
    assert log.lines[1] == "next"


def test_after_the_limit_there_is_one_notice_and_nothing_more() -> None:
    log, _ = logged(*[b"12345678\n"] * 100, limit=18)
    assert log.lines == ["12345678", "12345678"]
    assert len(log.warnings) == 1
    assert "log_limit_bytes=18" in log.warnings[0]


def test_the_last_lines_are_kept_beyond_the_limit() -> None:
    _, output = logged(*[b"%d\n" % number for number in range(1000)], limit=0)
    assert output.tail == tuple(str(number) for number in range(1000 - TAIL_LINES, 1000))


def test_a_secret_is_masked_wherever_the_chunks_are_cut() -> None:
    data = b"token=hunter2, again hunter2\n"
    for cut in range(len(data)):
        log, output = logged(data[:cut], data[cut:], secrets=("hunter2",))
        assert log.lines == ["token=***, again ***"]
        assert output.tail == ("token=***, again ***",)


def test_of_two_secrets_the_longer_one_is_masked_whole() -> None:
    assert logged(b"abcdef\n", secrets=("abc", "abcdef"))[0].lines == ["***"]


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIabcdef\n-----END KEY-----\n"
    assert logged(key.encode(), secrets=(key,))[0].lines == ["***", "***", "***"]


def test_a_secret_inside_a_url_is_masked_in_its_quoted_form() -> None:
    log, _ = logged(b"http://u:p%40ss%2Fword@host\n", secrets=("p@ss/word",))
    assert log.lines == ["http://u:***@host"]


def test_an_empty_secret_masks_nothing() -> None:
    assert logged(b"abc\n", secrets=("",))[0].lines == ["abc"]


@pytest.mark.parametrize("offset", range(-12, 13))
def test_no_part_of_a_secret_is_left_where_a_line_is_cut(offset: int) -> None:
    """Earlier masks shorten the line, so the cut may come close to the end of what was kept."""
    secret = "QZQZQZQZQZ"
    line = (secret * 3).encode() + b"x" * (LINE_LIMIT - 30 + offset) + secret.encode() * 2 + b"y" * 100 + b"\n"
    log, _ = logged(line, secrets=(secret,))
    assert "Q" not in log.lines[0]
    assert "[line cut" in log.lines[0]
