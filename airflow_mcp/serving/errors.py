"""Problems of requests, and how each is answered: the one table of HTTP statuses and codes."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

STATUSES: dict[str, tuple[int, str]] = {
    "invalid_http": (HTTPStatus.BAD_REQUEST, "the request is not HTTP/1.1; the connection is closed"),
    "invalid_body": (HTTPStatus.BAD_REQUEST, "the body is not JSON, or not one of the forms that are understood"),
    "invalid_rows": (HTTPStatus.BAD_REQUEST, "the rows do not fit the signature of the model"),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "the token is missing, expired, or not from the issuer"),
    "forbidden": (HTTPStatus.FORBIDDEN, "the token does not allow this"),
    "not_found": (HTTPStatus.NOT_FOUND, "there is no such path"),
    "unknown_model": (HTTPStatus.NOT_FOUND, "this server does not serve that model"),
    "unknown_version": (HTTPStatus.NOT_FOUND, "this server does not hold that version, or it is not ready"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "the path exists, but not with this method"),
    "not_acceptable": (HTTPStatus.NOT_ACCEPTABLE, "the caller accepts no JSON"),
    "timeout_body": (HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time"),
    "too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than `max_body_bytes`"),
    "url_too_long": (HTTPStatus.REQUEST_URI_TOO_LONG, "the URL is longer than 64 KiB; the connection is closed"),
    "unsupported_media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is neither JSON nor CSV"),
    "rate_limited": (HTTPStatus.TOO_MANY_REQUESTS, "more requests than the policy allows; see `Retry-After`"),
    "headers_too_large": (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the headers are longer than 64 KiB; the connection is closed",
    ),
    "model_failed": (HTTPStatus.INTERNAL_SERVER_ERROR, "the model raised an error for these rows"),
    "model_crashed": (HTTPStatus.INTERNAL_SERVER_ERROR, "the process of the model died while it answered, twice"),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of the server; its log has the details"),
    "upstream_failed": (HTTPStatus.BAD_GATEWAY, "the server that holds the model did not answer properly"),
    "not_ready": (HTTPStatus.SERVICE_UNAVAILABLE, "no version of the model can answer yet"),
    "overloaded": (HTTPStatus.SERVICE_UNAVAILABLE, "more rows are waiting than `max_queue_rows`; see `Retry-After`"),
    "timeout": (HTTPStatus.GATEWAY_TIMEOUT, "the model did not answer within `request_timeout`"),
}
"""Status and meaning of every error code."""


class Problem(Exception):  # noqa: N818  (an answer, not a defect)
    """Why a request is not answered with predictions.

    :param code: a key of :data:`STATUSES`.
    :param message: what is wrong, for the caller; never a value that the caller sent.
    :param retry_after: seconds after which the caller may try again; None for no such header.
    :param headers: further headers of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = int(STATUSES[code][0])
        self.message = message
        self.headers = headers
        if retry_after is not None:
            self.headers = (*headers, (b"retry-after", str(retry_after).encode()))

    def body(self, request_id: str) -> bytes:
        """Return the JSON body of the answer.

        :param request_id: identity of the request.
        """
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message, "request_id": request_id}})
