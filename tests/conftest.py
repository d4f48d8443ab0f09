"""Makes `fakes` and `factories` importable, and tells where real models lie."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def models_home() -> Path:
    """The data directory with the default models; skips where they are not."""
    home = Path(os.environ.get("TANDEM_HOME", Path(__file__).parents[1] / ".tandem")).resolve()
    wanted = ("smollm2-135m-instruct/base-q8_0.gguf", "all-minilm-l6-v2/model.safetensors")
    missing = [name for name in wanted if not (home / "models" / name).is_file()]
    if missing:
        pytest.skip(f"no {missing[0]} under {home / 'models'}: run `tandem models pull`")
    return home
