"""The command tree. Exit code 0 only on success; errors are one sentence on stderr."""

from __future__ import annotations

import sys
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from app.cli import (
    commands_adapters,
    commands_answers,
    commands_bench,
    commands_datasets,
    commands_decisions,
    commands_evaluations,
    commands_knowledge,
    commands_operations,
    commands_tuning,
)
from app.cli.output import sentence
from app.cli.state import State
from app.config import Settings
from app.errors import as_app_error
from app.logs import configure_logs

_INTERRUPTED = 130  # typer turns Ctrl-C inside a command into this exit code

app = typer.Typer(
    name="tandem",
    help="Retrieval carries the facts, a tuned adapter carries the voice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def options(
    context: typer.Context,
    json_output: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    workspace: Annotated[str, typer.Option(help="Workspace to act in.")] = "default",
    acting_as: Annotated[str, typer.Option("--as", help="Your name, for reviews.")] = "operator",
) -> None:
    """Options of every command."""
    settings = Settings()
    configure_logs(settings.log_level, as_json=settings.log_json)
    context.obj = State(settings, json_output, workspace, acting_as)


for module in (
    commands_operations,
    commands_knowledge,
    commands_answers,
    commands_datasets,
    commands_tuning,
    commands_adapters,
    commands_decisions,
    commands_evaluations,
    commands_bench,
):
    module.register(app)


def main() -> None:
    """Entry point: every expected failure is one sentence and a non-zero exit."""
    arguments = sys.argv[1:]
    # `--json` is accepted anywhere, as people type it.
    if "--json" in arguments:
        arguments = ["--json", *(a for a in arguments if a != "--json")]
    try:
        code = app(args=arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except TyperException as error:
        show = getattr(error, "show", None)  # usage errors know the command they are about
        show() if show else sentence(error.format_message())
        sys.exit(error.exit_code)
    except ValidationError as error:
        first = error.errors()[0]
        sentence(f"setting TANDEM_{str(first['loc'][0]).upper()}: {first['msg']}")
        sys.exit(2)
    except httpx.HTTPError as error:
        sentence(f"the server stopped answering: {error}")
        sys.exit(1)
    except Exception as error:
        expected = as_app_error(error)
        if expected is None:
            raise
        sentence(expected.detail)
        sys.exit(1)
    if code == _INTERRUPTED:
        sentence("interrupted: run the same command again, it goes on where it stopped")
    sys.exit(code if isinstance(code, int) else 0)
