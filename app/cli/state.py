"""What every command is given: settings and the options before the command's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from app.cli.client import Api
from app.cli.output import job_progress
from app.config import Settings


@dataclass(frozen=True, slots=True)
class State:
    """Global options."""

    settings: Settings
    json: bool
    workspace: str
    acting_as: str

    def api(self) -> Api:
        """A connection to the service."""
        return Api(self.settings, workspace=self.workspace, acting_as=self.acting_as)

    def run_job(self, api: Api, job: dict[str, Any], label: str) -> dict[str, Any]:
        """Follow a job with a live bar."""
        with job_progress(label, self.json) as show:
            return api.wait(job, show)


def state_of(context: typer.Context) -> State:
    """The state the callback made."""
    state = context.find_object(State)
    if state is None:
        raise typer.BadParameter("the command was started without its options")
    return state
