"""The base of every server's settings: read from the environment once, by `main()`, then frozen."""

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ServerSettings"]


class ServerSettings(BaseSettings):
    """Subclass with `env_prefix` set; an empty variable counts as unset, so `${VAR:-}` in mcp.json is harmless."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True)
