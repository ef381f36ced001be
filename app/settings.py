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
"""Folder of the artifacts that come with a checkout."""
MEBIBYTE = 1 << 20
"""Bytes."""
MISSPELLING_SIMILARITY = 0.93
"""Similarity ratio (0 to 1, prefix included) from which an unknown variable counts as a misspelled setting."""
SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
SERVICE_NAME = re.compile(r"OSTEON_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""Names of the variables that Kubernetes sets for a Service named osteon, or osteon-something."""

logger = logging.getLogger(__name__)


class Environment(EnvSettingsSource):
    """Environment source that ignores addresses of Kubernetes Services, whose names can equal those of settings."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and SERVICE_VALUE.fullmatch(value.strip()):
            logger.warning(
                "OSTEON_%s holds the address of a Kubernetes Service and counts as not set.", field_name.upper()
            )
            value = None
        return value, key, is_complex


class Settings(BaseSettings):
    """All settings, each read from `OSTEON_<NAME>`; a value out of range is an error."""

    model_config = SettingsConfigDict(env_prefix="OSTEON_", frozen=True)

    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="Where the network runs.")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="The network's arithmetic; int8 needs a CPU, and `python -m training quantize` before."
    )
    cache: Path = Field(default_factory=cache_folder, description="Folder that keeps compiled networks.")
    checkpoint: Path = Field(STARTER / "checkpoint", description="Checkpoint folder.")
    gallery: Path = Field(STARTER / "gallery", description="Gallery folder, built with that checkpoint.")
    scope: Literal["refuse", "flag", "off"] = Field(
        "refuse", description="What becomes of an image unlike the gallery's: 422, an answer that says so, or nothing."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")

    max_upload_mib: int = Field(50, ge=1, description="Bytes of one request, in MiB.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="Width x height, all radiographs of a study together.")
    max_files: int = Field(16, ge=1, description="Radiographs of one study.")
    max_neighbors: int = Field(100, ge=1, description="Largest k of /retrieve.")
    max_batch: int = Field(8, ge=1, description="Radiographs per forward pass; on a GPU 64 if not set.")
    max_pending: int = Field(256, ge=1, description="Requests in the service at once; more get 429.")
    max_inflight_mib: int = Field(512, ge=1, description="Bytes of all requests in the service at once, in MiB.")
    max_wait_seconds: float = Field(
        0.1, gt=0, description="Predicted wait beyond which a 429 is given; two full batches are never too much."
    )
    deadline_seconds: float = Field(30.0, gt=0, description="Time from a request's head to its reply, at most.")
    decode_threads: int = Field(2, ge=1, description="Threads that decode uploads and draw overlays.")
    decode_seconds: float = Field(10.0, gt=0, description="Processor time that decoding one very large image may take.")
    result_cache_mib: int = Field(64, ge=0, description="Memory that keeps the latest answers, in MiB; 0 keeps none.")
    canary_seconds: float = Field(5.0, gt=0, description="Pause between two checks with a known radiograph.")
    engine_dead_seconds: float = Field(
        30.0,
        gt=0,
        description="Time without progress of the engine or the event loop after which the process ends; only time in "
        "which it could run counts.",
    )
    drain_seconds: float = Field(1.0, ge=0, description="Time between SIGTERM and the end of listening.")
    jobs: str | None = Field(
        None,
        description="Database of the studies on their way, such as sqlite:////var/lib/osteon/jobs.sqlite or "
        "postgresql+pg8000://user@host/osteon; without one, /dicom-web takes no studies.",
    )
    jobs_key: Path = Field(
        default_factory=lambda: data_folder() / "jobs.key",
        description="File of the key that ciphers studies in that database; made when missing.",
    )
    archives: Path | None = Field(None, description="TOML file of the hospital's archives.")
    results_to: str | None = Field(None, description="Name of the archive that results go to; without, they stay here.")
    settle_seconds: float = Field(
        2.0, ge=0, description="Pause after a study's latest radiograph before it is analyzed."
    )
    max_study_radiographs: int = Field(
        64, ge=1, description="Radiographs of a study from an archive that are judged; more are left out and named."
    )
    max_study_pixels: int = Field(2_000_000_000, ge=1, description="Width x height of all of them together.")
    max_settle_seconds: float = Field(
        60.0, ge=0, description="Time after a study's first radiograph at which it is analyzed, whatever still comes."
    )
    study_hours: float = Field(
        72.0, ge=0, description="Hours that an answered study's radiographs are kept, encrypted, in case more arrive."
    )
    max_spool_mib: int = Field(4096, ge=1, description="Bytes of all studies on their way, in MiB.")
    lease_seconds: float = Field(
        30.0, ge=1, description="Time after which a study is another replica's, if its own is not heard of."
    )
    job_seconds: float = Field(1800.0, gt=0, description="Time that an attempt at a study may take.")
    job_attempts: int = Field(12, ge=1, description="Attempts at a study before it waits for an operator.")
    dead_days: float = Field(30.0, gt=0, description="Days that such a study is kept, encrypted, for the operator.")
    dicom_title: str = Field("OSTEON", description="Title of `make dicom-node`, which takes studies by C-STORE.")
    dicom_port: int = Field(11112, ge=0, le=65535, description="Port that it listens on.")
    dicom_associations: int = Field(32, ge=1, description="Associations that it has at once.")
    dicom_idle_seconds: float = Field(60.0, gt=0, description="Silence after which it ends an association.")
    dicom_pdu_kib: int = Field(256, ge=16, le=1024, description="Size of the PDUs that it asks callers for, in KiB.")
    dicomweb_user: str | None = Field(None, description="Name that callers of /dicom-web and /jobs have to give.")
    dicomweb_password: SecretStr | None = Field(None, description="Their password (HTTP Basic).")
    admin_token: SecretStr | None = Field(None, description="Bearer token of /admin; without it, only local callers.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, and no other source."""
        return init_settings, Environment(settings_cls)

    @property
    def max_upload_bytes(self) -> int:
        """Bytes of one request, at most."""
        return self.max_upload_mib * MEBIBYTE

    @property
    def result_cache_bytes(self) -> int:
        """Bytes of cached predictions, at most; 0 disables the cache."""
        return self.result_cache_mib * MEBIBYTE

    @property
    def max_spool_bytes(self) -> int:
        """Bytes of all queued studies, at most."""
        return self.max_spool_mib * MEBIBYTE

    @property
    def max_inflight_bytes(self) -> int:
        """Bytes of all requests in flight, at most."""
        return self.max_inflight_mib * MEBIBYTE


def read_settings(**given: object) -> Settings:
    """Read the settings from the environment; a keyword argument overrides its variable.

    Raises:
        InputError: a variable is out of range or misspelled; the message names each.
    """
    if misspelt := _find_misspellings(os.environ):
        raise InputError("; ".join(f"{name} is no setting, {meant} is" for name, meant in misspelt.items()))
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        faults = [f"OSTEON_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise InputError("; ".join(faults)) from error


def _find_misspellings(environment: Mapping[str, str]) -> dict[str, str]:
    """Map each misspelled variable to the setting that it resembles; any other may belong to another program."""
    settings = [f"OSTEON_{field.upper()}" for field in Settings.model_fields]
    strangers = [
        name
        for name in environment
        if name.startswith("OSTEON_") and name not in settings and not SERVICE_NAME.fullmatch(name)
    ]
    meant = {name: get_close_matches(name, settings, n=1, cutoff=MISSPELLING_SIMILARITY) for name in strangers}
    return {name: close[0] for name, close in meant.items() if close}
