"""A small server made with memento_kit, started by tests as a process of its own: `python probe_server.py OPTIONS`."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import anyio
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from memento_kit import Server, ServerSettings, StartupError, serve


class Settings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="MEMENTO_PROBE_")

    limit: int = Field(default=3, ge=1)
    pin: SecretStr | None = Field(default=None, min_length=8)
    database_password: str = Field(default="", max_length=3)
    numbers: tuple[int, ...] = ()
    start: Literal["well", "refused", "crashed"] = "well"
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _in_order(self) -> "Settings":
        if self.low > self.high:
            raise ValueError("MEMENTO_PROBE_LOW must not be above MEMENTO_PROBE_HIGH")
        return self


def build() -> Server[None]:
    settings = Settings()

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncGenerator[None]:
        await anyio.to_thread.run_sync(lambda: None)  # long enough for stdin to be waited for
        if settings.start == "refused":
            raise StartupError("MEMENTO_PROBE_START: this server was told not to start")
        if settings.start == "crashed":
            raise RuntimeError("a bug in the lifespan")
        sys.stderr.write("resources opened\n")
        try:
            yield
        except BaseException as exc:
            sys.stderr.write(f"interrupted by {type(exc).__name__}\n")
            raise
        finally:
            sys.stderr.write("resources closed\n")

    server = Server[None]("probe", lifespan=lifespan)

    @server.tool()
    async def add(a: Annotated[int, Field(description="One number.")], b: int = 1) -> int:  # pyright: ignore[reportUnusedFunction]
        """Add two numbers, and write to standard output the way a careless library does."""
        print("a stray print")  # noqa: T201
        await anyio.run_process([sys.executable, "-c", "print('a stray child')"], stdout=None)
        os.write(1, b"a stray write\n")
        return a + b

    @server.tool()
    async def wait() -> str:  # pyright: ignore[reportUnusedFunction]
        """Never answer."""
        sys.stderr.write("waiting\n")
        await anyio.sleep_forever()
        return "never"

    return server


if __name__ == "__main__":
    serve("memento-kit", build)
