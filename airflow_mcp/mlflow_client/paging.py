"""Lists that MLflow answers page by page."""

from __future__ import annotations

from collections.abc import Callable

from airflow_mcp.exceptions import InvalidArgumentError, MlflowError
from airflow_mcp.mlflow_client import answers
from airflow_mcp.mlflow_client.wire import ANSWER_TOO_LONG, MlflowRequest, MlflowResponse, Operation, T

PAGE_SIZE = 1000
PAGE_DIVISOR = 8
"""Pages become smaller by this factor when an answer is too long; each try reads as much as an answer may have."""


def paged(
    page: Callable[[int, str], MlflowRequest],
    read: Callable[[MlflowResponse], list[T]],
    max_results: int | None,
    enough: Callable[[list[T]], bool] | None = None,
    *,
    is_sizable: bool = True,
    page_size: int | None = None,
) -> Operation[list[T]]:
    """Request page after page and return the items of all of them; pages become smaller when an answer is too long.

    :param page: makes the request for a page from its size and token.
    :param read: reads the items of an answer.
    :param max_results: number of items after which to stop; None means all.
    :param enough: asked after each page with all items so far; true stops.
    :param is_sizable: whether the server takes a size; otherwise an answer that is too long is not requested again.
    :param page_size: size of the first page, at most :data:`PAGE_SIZE`, which is the default.
    :return: the items in the server's order.
    :raises InvalidArgumentError: for ``max_results`` below 1.
    """
    if max_results is not None and max_results < 1:
        raise InvalidArgumentError(f"max_results must be 1 or more; got {max_results}. Nothing was searched")
    items: list[T] = []
    token, seen, size = "", {""}, PAGE_SIZE if page_size is None else page_size
    while True:
        wanted = size if max_results is None else min(size, max_results - len(items))
        try:
            response = yield page(wanted, token)
        except MlflowError as error:
            if error.error_code != ANSWER_TOO_LONG or wanted == 1 or not is_sizable:
                raise
            size = max(wanted // PAGE_DIVISOR, 1)
            continue
        items += read(response)
        token = answers.next_page_token(response)
        if max_results is not None and len(items) >= max_results:
            return items[:max_results]
        if not token or (enough is not None and enough(items)):
            return items
        if token in seen:
            raise answers.not_mlflow(response, "the field 'next_page_token' repeats itself")
        seen.add(token)
