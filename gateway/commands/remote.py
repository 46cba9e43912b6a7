"""The commands' way to the admin API: where it is, with which token, and its refusals in words."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from gateway.program import typed
from gateway.secrets import admin_token_path
from gateway.settings import Settings

DOWNLOAD_S: Final = 600.0  # a million lines are made before the first is sent
_TIMEOUT_S: Final = 30.0


class RemoteError(Exception):
    """The admin API refused, or could not be reached. The message is for the user's eyes; `status`
    is that of a refusal.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Remote:
    """The admin API under /admin/v1. Use it as a context."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=f"{url}/admin/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,  # the admin listener is ours; no proxy stands before it
        )

    @classmethod
    def from_env(cls) -> Self:
        """RemoteError when there is no admin token to be found. SettingsError as the settings."""
        settings = Settings.from_env(os.environ)
        return cls(settings.find_admin_url(), _token(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
        within_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        """The answer of a success. RemoteError with the problem's own words otherwise."""
        given = {} if body is None else {"json": body}
        with self._in_words(within_s):
            answer = self._http.request(
                method, path, headers=headers, params=params, timeout=within_s, **given
            )
        if answer.is_success:
            return answer
        raise RemoteError(_reason(answer), answer.status_code)

    def parts(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
    ) -> Iterator[bytes]:
        """The body of a success as it comes: memory does not grow with it. RemoteError as of
        `call`, perhaps after some of it.
        """
        asking = self._http.stream("GET", path, headers=headers, params=params, timeout=DOWNLOAD_S)
        with self._in_words(DOWNLOAD_S), asking as answer:
            if not answer.is_success:
                answer.read()
                raise RemoteError(_reason(answer), answer.status_code)
            yield from answer.iter_bytes()

    @contextlib.contextmanager
    def _in_words(self, within_s: float) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as fault:
            raise RemoteError(
                f"the admin API at {self._http.base_url} had no answer within {within_s:g} s; "
                f"what it asks may be silent: {typed('doctor')} looks at store and database"
            ) from fault
        except httpx.HTTPError as fault:
            raise RemoteError(
                f"the admin API at {self._http.base_url} does not answer ({fault}); "
                f"start it with {typed('up')}, or set METERHOUSE_ADMIN_URL"
            ) from fault

    def all(
        self, noun: str, filters: Mapping[str, str | int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every object of a noun that meets the filters, page by page."""
        params: dict[str, str | int] = {"limit": 200, **(filters or {})}
        while True:
            page = self.call("GET", f"/{noun}", params=params).json()
            yield from page["items"]
            if page["next"] is None:
                return
            params["cursor"] = page["next"]


def _token(settings: Settings) -> str:
    if settings.admin_token:
        return settings.admin_token
    path = admin_token_path(settings)
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as fault:
        raise RemoteError(
            f"no admin token: {path} cannot be read ({fault.strerror}); start {typed('up')} "
            "with this METERHOUSE_HOME first, or set METERHOUSE_ADMIN_TOKEN"
        ) from fault


def _reason(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        detail = str(problem["detail"])
        faults = problem.get("errors", [])
    except (ValueError, KeyError, TypeError):
        return f"the admin API answered {answer.status_code}: {answer.text[:200]}"
    if len(faults) > 1:
        lines = (f"  {each['field']}: {each['message']}{_remedy(each)}" for each in faults)
        return "\n".join([f"{problem['title']} ({answer.status_code}):", *lines])
    return f"{detail} ({answer.status_code}){_remedy(faults[0]) if faults else ''}"


def _remedy(fault: dict[str, str]) -> str:
    return f"; {fault['remedy']}" if fault.get("remedy") else ""
