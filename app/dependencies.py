"""What endpoints ask for: the container and the principal of the request."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Request

from app.bootstrap import Container
from app.errors import Unauthenticated
from app.workspaces import service as workspaces
from app.workspaces.policy import Principal

OPERATOR_PREFIX = "operator."


def get_container(request: Request) -> Container:
    """The process's container."""
    container: Container = request.app.state.container
    return container


ContainerDep = Annotated[Container, Depends(get_container)]


def get_principal(
    container: ContainerDep,
    authorization: Annotated[str, Header()] = "",
    x_tandem_workspace: Annotated[str, Header()] = workspaces.DEFAULT_WORKSPACE,
    x_tandem_as: Annotated[str, Header()] = "operator",
) -> Principal:
    """Who asks: `Authorization: Bearer KEY`."""
    scheme, _, presented = authorization.partition(" ")
    if scheme.lower() != "bearer" or not presented:
        raise Unauthenticated("give an API key: `Authorization: Bearer KEY`")
    with container.database.session() as session:
        if presented.startswith(OPERATOR_PREFIX):
            secret = presented.removeprefix(OPERATOR_PREFIX)
            if not hmac.compare_digest(secret.encode(), container.operator_proof.encode()):
                raise Unauthenticated("the operator secret is not this data directory's")
            return workspaces.operator_principal(
                session, unquote(x_tandem_workspace), unquote(x_tandem_as)
            )
        return workspaces.authenticate(session, presented)


PrincipalDep = Annotated[Principal, Depends(get_principal)]
