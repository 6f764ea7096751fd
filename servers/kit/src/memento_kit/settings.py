"""The base of every server's settings, and what happens when one of them is wrong.

Owns reading the environment into a frozen object once, and saying which *variable* is wrong rather than
which field. It does not know any particular setting.
"""

import re
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

__all__ = ["ServerSettings", "StartupError"]

_MAX_SHOWN_CHARS = 80
_SECRET_NAME = re.compile(r"key|token|secret|password", re.IGNORECASE)


class StartupError(Exception):
    """The operator must change something before this can start. Shown as one line, without a traceback."""


class ServerSettings(BaseSettings):
    """Subclass with `env_prefix` set; an empty variable counts as unset, so `${VAR:-}` in mcp.json is harmless.

    Raises:
        StartupError: when made with a wrong value; names each environment variable and what is wrong with it.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as exc:
            raise StartupError(_problems(type(self), exc)) from exc
        except SettingsError as exc:  # a list or mapping that is not JSON; pydantic names only the field
            field = re.search(r'field "(\w+)"', str(exc))
            where = type(self).environment_variable(field[1]) if field else str(exc)
            raise StartupError(f"wrong setting: {where}: not valid JSON, which this setting needs") from exc

    @classmethod
    def environment_variable(cls, field: str) -> str:
        """Return the environment variable that sets `field`."""
        alias = cls.model_fields[field].validation_alias
        if isinstance(alias, str):
            return alias.upper()
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def _problems(settings: type[ServerSettings], error: ValidationError) -> str:
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_context=False):
        where = _variable(settings, problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if problem["type"] == "missing" or not where else _shown(settings, problem["loc"], problem["input"])
        problems.append(f"{where}: {message}{shown}" if where else message)
    return "wrong setting: " + "; ".join(problems)


def _variable(settings: type[ServerSettings], loc: tuple[int | str, ...]) -> str:
    """Name the variable a pydantic location means; empty when the problem is with several settings together."""
    if not loc:
        return ""
    name = str(loc[0])
    return settings.environment_variable(name) if name in settings.model_fields else name.upper()


def _shown(settings: type[ServerSettings], loc: tuple[int | str, ...], value: object) -> str:
    """The rejected value, unless it could be a secret: a startup message ends up in logs."""
    field = settings.model_fields.get(str(loc[0]))
    if _SECRET_NAME.search(str(loc[0])) or (field is not None and "Secret" in repr(field.annotation)):
        return ""
    text = repr(value)
    return f" (got {text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + '…'})"
