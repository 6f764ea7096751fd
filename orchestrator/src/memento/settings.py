"""Everything the environment can change about the agent. Each field is one row of the README's table."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from memento_kit import ServerSettings, memento_home

__all__ = ["Settings"]


class Settings(ServerSettings):
    """Read from the environment once, by the command; arguments given by name win over it.

    Raises:
        StartupError: a value is wrong; names the environment variable.
    """

    model_config = SettingsConfigDict(env_prefix="MEMENTO_", populate_by_name=True)

    home: Path = Field(default_factory=memento_home)
    """Folder of all user data: runs, case bank, caches."""
    config: Path | None = None
    """The mcp.json to use; default ./mcp.json, else the one shipped with the package."""

    model: str | None = None
    """Model for every role that has none of its own; `offline` is the built-in stand-in."""
    planner_model: str | None = None
    """Model that makes plans and the final answer."""
    executor_model: str | None = None
    """Model that does the subtasks with tools."""
    judge_model: str | None = None
    """Model that checks each answer against what was found; unset leaves the outcome unknown until you say."""
    base_url: str | None = Field(default=None, validation_alias=AliasChoices("MEMENTO_BASE_URL", "OPENAI_BASE_URL"))
    """OpenAI-compatible endpoint, such as http://localhost:11434/v1 for Ollama."""
    api_key: str | None = Field(
        default=None, validation_alias=AliasChoices("MEMENTO_API_KEY", "OPENAI_API_KEY"), repr=False
    )
    """Key for the endpoint. It is never passed to a tool server."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; unset leaves it to the server."""
    reasoning_effort: str | None = None
    """Reasoning effort for models that take one; unset leaves it to the server."""
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Limit on one reply; unset leaves it to the server."""
    planner_temperature: float | None = Field(default=None, ge=0, le=2)
    """The planner's own temperature."""
    planner_reasoning_effort: str | None = None
    """The planner's own reasoning effort: low makes it the paper's fast planner, high its slow one."""
    executor_temperature: float | None = Field(default=None, ge=0, le=2)
    """The executor's own temperature."""
    executor_reasoning_effort: str | None = None
    """The executor's own reasoning effort."""
    executor_models: dict[str, str] | None = None
    """JSON: kind of subtask to the model that does it, such as {"code": "qwen3-coder"}; the planner names the kind."""
    dialect: str = ""
    """What the endpoint takes, where it does not tell by itself, such as `system_role=user,native_tools=false`."""
    mode: Literal["planner", "online-executor", "offline-executor"] = "planner"
    """The paper's ablations: online-executor leaves out the planner and its memory, offline-executor the tools too."""
    model_timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one model call may take."""
    model_retries: int = Field(default=2, ge=0, le=10)
    """How often a call that failed for a passing reason (429, 5xx, connection) is sent again."""

    max_plans: int = Field(default=3, ge=1, le=20)
    """Planning cycles; after the last one the planner must answer with what it has."""
    max_turns_per_subtask: int = Field(default=12, ge=1)
    """Model turns the executor has for one subtask."""
    max_stale_turns: int = Field(default=4, ge=2)
    """Turns in a row that bring nothing new (errors, results already seen) after which a subtask is stopped."""
    max_model_calls: int = Field(default=80, ge=1)
    """Model calls of one run."""
    max_tool_calls: int = Field(default=60, ge=0)
    """Tool executions of one run, counted before each is sent; an answer from the tool cache is none."""
    max_total_tokens: int | None = Field(default=1_000_000, ge=1)
    """Input and output tokens of one run, as far as the server reports them."""
    max_cost_usd: float | None = Field(default=None, gt=0)
    """Money of one run, as far as prices are known; unset is no limit."""
    max_seconds: float = Field(default=900.0, gt=0)
    """Wall time of one run, before its last answer."""
    eval_max_model_calls: int | None = Field(default=None, ge=1)
    """Model calls of all runs of one evaluation together; at the limit not even a last answer is asked for."""
    eval_max_tool_calls: int | None = Field(default=None, ge=0)
    """Tool executions of all runs of one evaluation together."""
    eval_max_total_tokens: int | None = Field(default=None, ge=1)
    """Input and output tokens of all runs of one evaluation together."""
    eval_max_cost_usd: float | None = Field(default=None, gt=0)
    """Money of all runs of one evaluation together, as far as prices are known."""
    eval_max_seconds: float | None = Field(default=None, gt=0)
    """Wall time of one evaluation, from its start."""
    final_seconds: float = Field(default=60.0, gt=0)
    """How long a forced last answer may take, and how long keeping and judging the attempt may take."""
    parallel_subtasks: int = Field(default=3, ge=1, le=32)
    """How many subtasks of a plan run at once."""
    max_result_chars: int = Field(default=16_000, ge=500)
    """A longer tool result is stored in the run's folder; the model gets its head, its tail and a way to read on."""

    max_context_chars: int = Field(default=300_000, ge=10_000)
    """An executor's history over this is trimmed to half: old results are put away, then whole old turns left out."""
    executor_images: bool = False
    """The executor's model takes images: those in tool results are shown to it, else they are only stored."""

    tool_cache: bool = True
    """Keep answers of read-only tools over runs."""
    tool_cache_seconds: float = Field(default=86_400.0, ge=0)
    """How long such an answer holds when the tool looks at the open world (a search, a page)."""
    tool_cache_error_seconds: float = Field(default=60.0, ge=0)
    """How long an error that such a tool answered holds."""
    tool_cache_seconds_by_tool: dict[str, float] | None = None
    """JSON: `server__tool` to its own time, also for read-only tools that answer from local state; 0 keeps nothing."""

    connect_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long a tool server may take to start and list its tools."""
    tool_timeout_seconds: float = Field(default=120.0, gt=0)
    """How long one tool call may take."""

    memory: Literal["on", "read-only", "off"] = "on"
    """Whether past cases are shown to the planner (on, read-only) and new ones kept (on)."""
    memory_per_subtask: bool = False
    """Also ask the memory before each subtask, and tell the executor how similar work went."""
    memory_server: str = "casebank"
    """Name in mcp.json of the server that keeps the cases; its tools are not offered to the models."""
    namespace: str = "default"
    """Part of the case bank to read and write, such as one per project."""
    cases_shown: int = Field(default=4, ge=1, le=32)
    """K: how many cases the planner is shown at most (the paper's best is 4)."""
