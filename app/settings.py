"""The settings of the service. Only this module reads environment variables (`OSTEON_*`)."""

import logging
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from xray.errors import InputError
from xray.images.radiograph import MAX_PIXELS
from xray.user_folders import cache_folder, data_folder

STARTER = Path(__file__).resolve().parent.parent / "artifacts" / "starter"
"""Folder with the artifacts that are part of the repository."""
MEBIBYTE = 1 << 20
"""Bytes."""
MISSPELLING_SIMILARITY = 0.93
"""Minimum similarity ratio (0 to 1, including the prefix) at which an unknown variable counts as misspelled."""
SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
SERVICE_NAME = re.compile(r"OSTEON_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""Names of the variables that Kubernetes sets for a Service named osteon, or osteon-something."""

logger = logging.getLogger(__name__)


class Environment(EnvSettingsSource):
    """Environment source of the settings; ignores addresses of Kubernetes Services that are named like settings."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read the variable of a setting; the address of a Kubernetes Service counts as not set."""
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and SERVICE_VALUE.fullmatch(value.strip()):
            logger.warning(
                "OSTEON_%s has the address of a Kubernetes Service and counts as not set.", field_name.upper()
            )
            value = None
        return value, key, is_complex


class Settings(BaseSettings):
    """All settings of the service, each read from `OSTEON_<NAME>`; a value out of range is an error."""

    model_config = SettingsConfigDict(env_prefix="OSTEON_", frozen=True)

    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="Device that runs the network.")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="Arithmetic of the network; int8 needs a CPU, and `python -m training quantize` must have run.",
    )
    cache: Path = Field(default_factory=cache_folder, description="Folder that keeps compiled networks.")
    checkpoint: Path = Field(STARTER / "checkpoint", description="Checkpoint folder.")
    gallery: Path = Field(
        STARTER / "gallery", description="Gallery folder; the gallery has to be built with that checkpoint."
    )
    scope: Literal["refuse", "flag", "off"] = Field(
        "refuse",
        description="For images that are no limbs: refuse (422), flag in the reply, or turn the check off.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")

    max_upload_mib: int = Field(50, ge=1, description="Maximum size of one request, in MiB.")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, description="Maximum number of pixels of all radiographs of a request together."
    )
    max_files: int = Field(16, ge=1, description="Maximum number of radiographs in one request.")
    max_neighbors: int = Field(100, ge=1, description="Largest k of /retrieve.")
    max_batch: int = Field(
        8, ge=1, description="Maximum number of radiographs per forward pass; the default on a GPU is 64."
    )
    max_pending: int = Field(256, ge=1, description="Maximum number of requests in the service; more get 429.")
    max_inflight_mib: int = Field(
        512, ge=1, description="Maximum size of all requests in the service together, in MiB."
    )
    max_wait_seconds: float = Field(
        0.1,
        gt=0,
        description="Predicted wait in seconds above which requests get 429; two full batches may always wait.",
    )
    deadline_seconds: float = Field(
        30.0, gt=0, description="Maximum time from a request's head to its reply, in seconds."
    )
    decode_threads: int = Field(2, ge=1, description="Threads that decode uploads and draw overlays.")
    decode_seconds: float = Field(
        10.0, gt=0, description="CPU time limit for decoding one very large image, in seconds."
    )
    result_cache_mib: int = Field(
        64, ge=0, description="Memory for the latest predictions, in MiB; 0 turns the cache off."
    )
    canary_seconds: float = Field(
        5.0, gt=0, description="Pause between two checks with a known radiograph, in seconds."
    )
    engine_dead_seconds: float = Field(
        30.0,
        gt=0,
        description="Time without progress of the engine or the event loop after which the process ends, in seconds; "
        "only time in which the process could run counts.",
    )
    drain_seconds: float = Field(1.0, ge=0, description="Time between SIGTERM and the end of listening, in seconds.")
    jobs: str | None = Field(
        None,
        description="Database of the job queue, such as sqlite:////var/lib/osteon/jobs.sqlite or "
        "postgresql+pg8000://user@host/osteon; without one, /dicom-web accepts no studies.",
    )
    jobs_key: Path = Field(
        default_factory=lambda: data_folder() / "jobs.key",
        description="File with the key that encrypts studies in that database; created if missing.",
    )
    archives: Path | None = Field(None, description="TOML file that describes the hospital's archives.")
    results_to: str | None = Field(None, description="Archive that gets the results; if not set, they stay here.")
    settle_seconds: float = Field(
        2.0, ge=0, description="Pause between a study's latest radiograph and its analysis, in seconds."
    )
    max_study_radiographs: int = Field(
        64, ge=1, description="Maximum number of radiographs of a study that are analyzed; more are left out and named."
    )
    max_study_pixels: int = Field(2_000_000_000, ge=1, description="Maximum number of pixels of a study.")
    max_settle_seconds: float = Field(
        60.0,
        ge=0,
        description="Time after a study's first radiograph at which it is analyzed even if more arrive, in seconds.",
    )
    study_hours: float = Field(
        72.0, ge=0, description="Hours to keep the radiographs of an analyzed study, encrypted, in case more arrive."
    )
    max_spool_mib: int = Field(4096, ge=1, description="Maximum size of all queued studies, in MiB.")
    lease_seconds: float = Field(
        30.0,
        ge=1,
        description="Time without a heartbeat of a replica after which another one takes over its study, in seconds.",
    )
    job_seconds: float = Field(1800.0, gt=0, description="Maximum time of one attempt at a study, in seconds.")
    job_attempts: int = Field(12, ge=1, description="Attempts at a study before its job is dead.")
    dead_days: float = Field(
        30.0, gt=0, description="Days to keep the study of a dead job, encrypted, for an operator."
    )
    dicom_title: str = Field("OSTEON", description="AE title of `make dicom-node`, which receives studies by C-STORE.")
    dicom_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM node.")
    dicom_associations: int = Field(32, ge=1, description="Maximum number of associations of the DICOM node.")
    dicom_idle_seconds: float = Field(
        60.0, gt=0, description="Idle time after which the DICOM node ends an association, in seconds."
    )
    dicom_pdu_kib: int = Field(
        256, ge=16, le=1024, description="Maximum PDU size that the DICOM node negotiates, in KiB."
    )
    dicomweb_user: str | None = Field(None, description="User name for /dicom-web and /jobs (HTTP Basic).")
    dicomweb_password: SecretStr | None = Field(None, description="Password for /dicom-web and /jobs.")
    admin_token: SecretStr | None = Field(
        None, description="Bearer token for /admin; if not set, only local callers may use it."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read settings from the arguments first, then from the environment; there is no other source."""
        return init_settings, Environment(settings_cls)

    @property
    def max_upload_bytes(self) -> int:
        """The settings' maximum size of one request, in bytes."""
        return self.max_upload_mib * MEBIBYTE

    @property
    def result_cache_bytes(self) -> int:
        """The settings' maximum size of the cached predictions, in bytes; 0 turns the cache off."""
        return self.result_cache_mib * MEBIBYTE

    @property
    def max_spool_bytes(self) -> int:
        """The settings' maximum size of all queued studies, in bytes."""
        return self.max_spool_mib * MEBIBYTE

    @property
    def max_inflight_bytes(self) -> int:
        """The settings' maximum size of all requests in flight, in bytes."""
        return self.max_inflight_mib * MEBIBYTE


def read_settings(**given: object) -> Settings:
    """Read the settings from the environment; a keyword argument overrides its variable.

    Raises:
        InputError: a variable is out of range or misspelled; the message names each.
    """
    if misspelt := _find_misspellings(os.environ):
        raise InputError(
            "; ".join(f"{name} is not a setting; did you mean {meant}?" for name, meant in misspelt.items())
        )
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        faults = [f"OSTEON_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise InputError("; ".join(faults)) from error


def _find_misspellings(environment: Mapping[str, str]) -> dict[str, str]:
    """Map each misspelled variable to the setting that it resembles; other variables may belong to other programs."""
    settings = [f"OSTEON_{field.upper()}" for field in Settings.model_fields]
    strangers = [
        name
        for name in environment
        if name.startswith("OSTEON_") and name not in settings and not SERVICE_NAME.fullmatch(name)
    ]
    meant = {name: get_close_matches(name, settings, n=1, cutoff=MISSPELLING_SIMILARITY) for name in strangers}
    return {name: close[0] for name, close in meant.items() if close}
