"""The code on docs/serving.md runs as it stands, against a live service."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import PAGES, Service
from factories import listening, make_container
from starlette.testclient import TestClient

from app.main import create_app

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
BLOCKS = BLOCK.findall((ROOT / "docs" / "serving.md").read_text("utf-8"))
# What the output of each block must hold, in the order of the page.
EXPECTED = [
    ("49 euros", "Monthly prices"),
    ("8:30",),
    ("8:30",),
    ("49 euros", "plans.md", "21 days", "True", "404 no use case 'nobody'"),
    ("79 euros", "True"),
    ("'state': 'visible'",),
    ("returns.md", "49 euros", "8:30"),
    ("8:30",),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    container = make_container(tmp_path_factory.mktemp("home"))
    app = create_app(container)
    container.prepare()
    furnished = Service(container, TestClient(app), None).furnished(PAGES)
    with listening(app, patience_s=60) as url:
        yield {
            "TANDEM_URL": url,
            "TANDEM_KEY": furnished.keys["client"],
            "TANDEM_OWNER_KEY": furnished.keys["owner"],
        }


def test_every_block_has_an_expectation():
    assert len(BLOCKS) == len(EXPECTED)


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_block_of_the_page_runs(environment, number, monkeypatch, capfd):
    language, code = BLOCKS[number]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if language == "python":
        exec(compile(code, f"serving.md block {number}", "exec"), {"__name__": "block"})
    else:
        subprocess.run(["sh", "-c", code], check=True, timeout=300)
    said = capfd.readouterr().out
    for wanted in EXPECTED[number]:
        assert wanted in said
