"""What endpoints ask for: the container and the principal of the request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from app.bootstrap import Container
from app.errors import Unauthenticated
from app.workspaces import service as workspaces
from app.workspaces.policy import Principal


async def get_container(request: Request) -> Container:
    """The process's container."""
    container: Container = request.app.state.container
    return container


ContainerDep = Annotated[Container, Depends(get_container)]


async def get_principal(
    request: Request,
    authorization: Annotated[str, Header()] = "",
    x_tandem_workspace: Annotated[str, Header()] = workspaces.DEFAULT_WORKSPACE,
    x_tandem_as: Annotated[str, Header()] = "operator",
) -> Principal:
    """Who asks: `Authorization: Bearer KEY`. Admission has identified them from these headers."""
    caller: workspaces.Caller | None = request.scope.get("tandem.caller")
    if caller is None:
        raise Unauthenticated("give an API key: `Authorization: Bearer KEY`")
    return caller.principal


PrincipalDep = Annotated[Principal, Depends(get_principal)]
