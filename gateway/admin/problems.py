"""Refusals of the admin API as `application/problem+json` (RFC 9457), whatever raised them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from gateway.stores.sql.exact import TooLargeError

MEDIA_TYPE: Final = "application/problem+json"
_LOG: Final = logging.getLogger("meterhouse.admin")


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with the request, and what would be right."""

    field: str  # a path into the body such as `targets[0].weight`, or a query parameter's name
    message: str
    remedy: str = ""


class ProblemBody(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """RFC 9457, with `code` for programs and `errors` for every fault found."""

    title: str
    status: int
    detail: str
    code: str
    kind: str = "about:blank"
    errors: tuple[Fault, ...] = ()


class ProblemError(Exception):
    """A refusal on its way to the edge."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def invalid(field: str, message: str, remedy: str = "") -> ProblemError:
    """422: well-formed, but the value cannot be accepted."""
    return ProblemError(
        422, "invalid_value", f"{field}: {message}", (Fault(field, message, remedy),)
    )


def together(*checks: Callable[[], object]) -> None:
    """Runs every check. 422 with all that they refuse, not only with what the first refuses."""
    faults: list[Fault] = []
    for check in checks:
        try:
            check()
        except ProblemError as problem:
            if problem.status != HTTPStatus.UNPROCESSABLE_ENTITY or not problem.errors:
                raise
            faults += problem.errors
    if faults:
        raise ProblemError(422, "invalid_value", summary(faults), faults)


def summary(faults: Sequence[Fault]) -> str:
    """All of them in one line."""
    return "; ".join(
        f"{each.field}: {each.message}" if each.field else each.message for each in faults
    )


def malformed(field: str, message: str, code: str = "invalid_request") -> ProblemError:
    """400: the request does not have the form that the API description gives it."""
    detail = f"{field}: {message}" if field else message
    return ProblemError(400, code, detail, (Fault(field, message),))


def conflict(code: str, detail: str) -> ProblemError:
    return ProblemError(409, code, detail)


def missing(noun: str, identifier: str) -> ProblemError:
    return ProblemError(404, "not_found", f"there is no {noun} {identifier!r:.80}")


def response(problem: ProblemError) -> Response[bytes]:
    body = ProblemBody(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        errors=problem.errors,
    )
    headers = {"cache-control": "no-store"} | problem.headers
    return Response(
        msgspec.json.encode(body),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def _render_problem(request: Request[Any, Any, Any], problem: ProblemError) -> Response[bytes]:
    """With the request's id, where it got as far as having one."""
    answer = response(problem)
    request_id = request.state.get("request_id")
    if request_id is not None:
        answer.headers["x-request-id"] = request_id
    return answer


def _render_http(request: Request[Any, Any, Any], fault: HTTPException) -> Response[bytes]:
    """What the framework refuses: unknown route, wrong method, a body that is too large."""
    if fault.status_code >= 500:
        return _render_fault(request, fault)
    errors = [
        Fault(str(each.get("key", "")), str(each.get("message", "")))
        for each in (fault.extra if isinstance(fault.extra, list) else [])
        if isinstance(each, dict)
    ]
    code = HTTPStatus(fault.status_code).name.lower()
    detail = fault.detail
    if fault.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path:.200}; /admin/openapi.json says what is"
    elif fault.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not for this path; /admin/openapi.json says what is"
    named = ProblemError(fault.status_code, code, detail, errors, fault.headers)
    return _render_problem(request, named)


def _render_too_large(request: Request[Any, Any, Any], fault: Exception) -> Response[bytes]:
    return _render_problem(request, ProblemError(422, "amount_too_large", str(fault)))


def _render_outage(request: Request[Any, Any, Any], fault: Exception) -> Response[bytes]:
    _LOG.warning("the database did not answer: %s", type(fault).__name__)
    problem = ProblemError(
        503, "database_unavailable", "the database did not answer", (), {"retry-after": "2"}
    )
    return _render_problem(request, problem)


def _render_fault(request: Request[Any, Any, Any], fault: Exception) -> Response[bytes]:
    request_id = request.state.get("request_id", "")
    _LOG.error("%s %s %s failed", request_id, request.method, request.url.path, exc_info=fault)
    problem = ProblemError(500, "internal_error", "the gateway failed; its log says why")
    return _render_problem(request, problem)


HANDLERS: Final[dict[int | type[Exception], Callable[..., Response[bytes]]]] = {
    ProblemError: _render_problem,
    TooLargeError: _render_too_large,
    HTTPException: _render_http,
    OperationalError: _render_outage,
    PoolTimeoutError: _render_outage,
    Exception: _render_fault,
}
