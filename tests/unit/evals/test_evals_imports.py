"""The package stands alone and costs little to import."""

import ast
import subprocess
import sys
from pathlib import Path

import evals

PACKAGE = Path(evals.__file__).parent


def test_evals_imports_only_numpy_scipy_and_the_standard_library():
    allowed = {"evals", "numpy", "scipy"} | set(sys.stdlib_module_names)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_importing_the_package_loads_no_library():
    code = "import sys, evals; print([m for m in ('numpy', 'scipy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
