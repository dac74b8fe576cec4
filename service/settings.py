"""Settings of every process, from ``DEEPNIGHT_*`` environment variables."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from models.core.datasets.options import Limits


class Settings(BaseSettings):
    """All settings with their defaults; sizes in bytes, durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="DEEPNIGHT_", extra="ignore", frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    home: Path = Path(".deepnight")
    redis_url: str | None = Field(
        default=None, repr=False, description="unset: an embedded Valkey is started in `home`"
    )
    store_url: str | None = Field(default=None, repr=False, description="unset: the folder `home`/store")
    api_keys: str = Field(default="", repr=False, description="comma-separated keys with every scope")
    ray_address: str = "local"
    ray_metrics_port: int = Field(default=0, ge=0, le=65535, description="of a Ray started here; 0: any free port")
    methods_path: str = Field(default="", description="more folders of methods, separated by the path separator")

    backend: Literal["ray", "in-process"] = "ray"
    placement: dict[str, Literal["pool", "dedicated"]] = Field(
        default={}, description="overrides the cards; by slug or *"
    )
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    num_cpus: float = Field(default=0.0, ge=0, description="cores that a cluster sets aside for each replica")
    num_gpus: float = Field(default=0.0, ge=0, description="share of a GPU for each replica")
    replicas: int = Field(default=1, ge=1, description="replicas of the pool")
    max_replicas: int = Field(default=2, ge=1, description="upper limit of a dedicated deployment")
    models_per_replica: int = Field(default=40, ge=1)
    torch_threads: int = Field(default=1, ge=1)

    deadline_s: float = Field(default=60.0, gt=0)
    calls_in_flight: int = Field(default=2, ge=1, description="handle calls in flight for each replica and model")
    queue_limit: int = Field(default=1024, ge=1, description="items waiting for a model beyond which it answers 503")
    max_body_bytes: int = Field(default=64 << 20, gt=0)
    max_upload_bytes: int = Field(default=2 << 30, gt=0)
    max_decompressed_bytes: int = Field(default=4 << 30, gt=0)
    max_pixels: int = Field(default=16_777_216, gt=0)
    max_text_characters: int = Field(default=200_000, gt=0)
    requests_per_minute: int = Field(default=0, ge=0, description="for each key; 0 means no limit")
    concurrent_jobs: int = Field(default=20, ge=1, description="open jobs for each key")

    job_retention_s: int = Field(default=7 * 86400, gt=0)
    job_timeout_s: int = Field(default=6 * 3600, gt=0)
    job_lease_s: float = Field(default=10.0, gt=0)
    job_interval_s: float = Field(default=2.0, gt=0)
    drain_s: float = Field(default=25.0, ge=0)

    log_format: Literal["auto", "json", "pretty"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, url: str | None) -> str | None:
        from workers.sentinels import check_redis_url

        if url is not None:
            check_redis_url(url)
        return url

    @cached_property
    def store(self) -> str:
        """URL or path of the blob store."""
        return self.store_url or str(self.home.resolve() / "store")

    @cached_property
    def method_roots(self) -> tuple[Path, ...]:
        """Extra folders of methods."""
        return tuple(Path(part) for part in self.methods_path.split(os.pathsep) if part)

    @cached_property
    def dataset_limits(self) -> Limits:
        """What an uploaded file may cost."""
        from models.core.datasets.options import Limits

        return Limits(
            decompressed_bytes=self.max_decompressed_bytes,
            pixels=self.max_pixels,
            text_characters=self.max_text_characters,
        )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return self.host in ("127.0.0.1", "localhost", "::1")
