"""Rules of the code itself: arrows, broad excepts, lengths, cheap imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "app").rglob("*.py"))
FEATURES = {p.parent.name for p in FILES if p.name == "service.py"} | {"decisions", "datasets"}
MAX_FUNCTION, MAX_FILE = 60, 400
# Only these may catch everything: a job must end in a state, a doctor reports whatever is wrong,
# the command line turns what it knows into a sentence and raises the rest, a stream whose 200 is
# out and a worker thread whose reader waits must tell of any failure.
BROAD = {
    "app/answers/openai_endpoints.py",
    "app/cli/commands_operations.py",
    "app/cli/main.py",
    "app/engines/streams.py",
    "app/jobs/runner.py",
}
COMPOSITION = {"app/bootstrap.py", "app/main.py", "app/dependencies.py"}


def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports_of(path):
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION, node.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_catches_everything_but_the_outermost_edges(path):
    broad = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
    ]
    assert len(broad) <= (name_of(path) in BROAD), f"lines {broad}"


@pytest.mark.parametrize("package", ["retrieval", "tuning", "evals"])
def test_libraries_import_neither_each_other_nor_the_service(package):
    others = {"app", "retrieval", "tuning", "evals", "fastapi", "sqlalchemy", "dbos"} - {package}
    for path in (ROOT / package).rglob("*.py"):
        wrong = {name for name in imports_of(path) if name.split(".")[0] in others}
        assert not wrong, (path, wrong)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_services_and_repositories_do_not_look_back_at_http(path):
    if path.name not in ("service.py", "repository.py", "jobs.py", "ingest.py", "policy.py"):
        return
    wrong = {
        name
        for name in imports_of(path)
        if name.split(".")[0] in ("fastapi", "starlette")
        or name.startswith(("app.dependencies", "app.bootstrap", "app.main", "app.cli"))
        or ".endpoints" in name
    }
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_tables_and_engines_know_no_feature(path):
    if path.parts[-2] not in ("db", "tables", "engines"):
        return
    wrong = {
        name
        for name in imports_of(path)
        if name.startswith("app.") and name.split(".")[1] in FEATURES - {"models"}
    }
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_composition_root_reads_the_environment(path):
    if name_of(path) == "app/config.py":
        return
    text = path.read_text("utf-8")
    assert "os.environ" not in text
    assert "os.getenv" not in text


def test_importing_the_command_line_loads_no_model_library():
    code = (
        "import sys, app.cli.main, app.main; "
        "print([m for m in ('torch','transformers','sentence_transformers','matplotlib',"
        "'xllamacpp','qdrant_edge') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
