"""Settings: the only file that reads the environment (`TANDEM_*`, or a `.env` file)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SpareServer(BaseModel):
    """An OpenAI-compatible server with the same base model, asked when the engines before it fail.

    `url` without the /v1, `model` the base model's name there (None: the first it lists).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    model: str | None = None
    dialect: Literal["vllm", "llamacpp", "chat"] = "vllm"
    api_key: SecretStr | None = None


class Settings(BaseSettings):
    """Everything an operator may change. Passed down as values; libraries never see it."""

    model_config = SettingsConfigDict(
        env_prefix="TANDEM_", env_file=".env", extra="ignore", frozen=True
    )

    home: Path = Field(Path(".tandem"), description="data directory")
    database_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in home")
    jobs_url: str | None = Field(None, description="DBOS store; default: SQLite in home")

    qdrant_url: str | None = Field(
        None, description="Qdrant server; default: an embedded Edge shard per knowledge base"
    )

    base_model: str = Field(
        "smollm2-135m-instruct",
        description="default model's name, a GGUF file, a local folder or a Hugging Face id",
    )
    base_quantisation: str = Field(
        "Q8_0",
        description="file llama.cpp serves: Q8_0, Q4_1 (as shipped), Q4_0, BF16 or F16",
    )
    embedding_model: str = Field(
        "all-minilm-l6-v2", description="default model's name, a local folder or a Hugging Face id"
    )

    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "warning"
    log_json: bool = False

    engine: Literal["auto", "llamacpp", "transformers", "openai_compatible"] = Field(
        "auto", description="what generates; auto: llama.cpp where the base model has a GGUF file"
    )
    engine_url: str | None = Field(None, description="OpenAI-compatible server, without the /v1")
    engine_model: str | None = Field(
        None, description="base model's name on that server; default: the first it lists"
    )
    engine_dialect: Literal["vllm", "llamacpp", "chat"] = Field(
        "vllm", description="how that server is spoken to; chat: TGI, Ollama, hosted models"
    )
    engine_api_key: SecretStr | None = Field(None, description="key that server asks for")
    engine_timeout_s: float = Field(
        120, gt=0, description="seconds without a byte after which that server counts as gone"
    )
    spare_engines: tuple[SpareServer, ...] = Field(
        (), description="servers to ask in turn when the engine fails (JSON list of objects)"
    )
    adapter_patience_s: float = Field(
        1.0, ge=0, description="how long one adapter's requests go before another's (llama.cpp)"
    )

    reuse_prefix: bool = Field(
        True, description="keep the evaluated system text of a prompt for the next one (llama.cpp)"
    )

    merge_adapters: bool = Field(
        False, description="merge each adapter into a copy of the base (llama.cpp): faster, larger"
    )

    threads: int = Field(0, description="threads for generation; 0 = all cores")
    slots: int = Field(4, ge=1, le=64, description="requests generated at the same time")
    context_tokens: int = Field(2048, ge=512, description="context window per slot, in tokens")
    max_answer_tokens: int = Field(160, ge=8)
    max_resident_adapters: int = Field(16, ge=1)

    answers_at_once: int = Field(64, ge=1, description="requests answered side by side")
    answers_waiting: int = Field(256, ge=0, description="requests that may wait for a place")
    patience_s: float = Field(30.0, gt=0, description="most seconds a request waits for a place")
    answer_timeout_s: float = Field(300.0, gt=0, description="most seconds for one generation")
    heartbeat_s: float = Field(15.0, gt=0, description="silence of a stream before a comment")
    max_request_bytes: int = Field(1024 * 1024, ge=1024, description="largest question accepted")
    redis_url: str | None = Field(None, description="quotas of all processes; default: in-process")

    chunk_tokens: int = Field(150, ge=32, le=512)
    passages: int = Field(3, ge=1, le=12, description="passages put before the model")
    questions_per_pass: int = Field(
        1, ge=1, le=64, description="questions embedded together when they come at the same time"
    )
    reranker: str | None = Field(None, description="cross-encoder folder or name; default: none")
    search_diversity: float | None = Field(
        None, ge=0, le=1, description="balance of maximal marginal relevance; default: off"
    )
    search_neighbours: int = Field(
        0, ge=0, le=3, description="chunks joined to a hit on either side"
    )
    context_budget_tokens: int = Field(620, ge=64)

    max_upload_bytes: int = 50 * 1024 * 1024
    source_allow: tuple[str, ...] = Field(
        (), description="internal hosts and networks that web sources may read (JSON list)"
    )
    source_ports: tuple[int, ...] = Field(
        (), description="ports besides 80 and 443 that web sources may use (JSON list)"
    )
    data: Path | None = Field(None, description="data sets of tests and benchmarks")
    api_key: SecretStr | None = Field(None, description="key the command line presents")

    @cached_property
    def root(self) -> Path:
        """The data directory, absolute."""
        return self.home.expanduser().resolve()

    @property
    def sql_url(self) -> str:
        """The application database."""
        return self.database_url or f"sqlite:///{self.root / 'tandem.sqlite'}"

    @property
    def jobs_sql_url(self) -> str:
        """The job store."""
        return self.jobs_url or f"sqlite:///{self.root / 'jobs.sqlite'}"

    @property
    def models_dir(self) -> Path:
        """Unpacked models."""
        return self.root / "models"
