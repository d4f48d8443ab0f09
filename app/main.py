"""The application: lifespan, routers, error handlers. No logic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from app.admission.middleware import AdmissionMiddleware
from app.answers.calibration_endpoints import router as calibrations
from app.answers.endpoints import router as answers
from app.answers.openai_endpoints import router as openai
from app.bootstrap import Container
from app.config import Settings
from app.datasets.endpoints import router as datasets
from app.decisions.endpoints import router as decisions
from app.errors import AppError, as_app_error, problem
from app.evaluations.endpoints import router as evaluations
from app.feedback.endpoints import router as feedback
from app.jobs.endpoints import router as jobs
from app.knowledge.document_endpoints import router as documents
from app.knowledge.endpoints import router as knowledge
from app.knowledge.sync_endpoints import router as syncs
from app.tuning_runs.endpoints import router as tuning_runs
from app.use_cases.endpoints import router as use_cases
from app.workspaces.endpoints import router as workspaces
from evals.errors import EvalError
from retrieval.errors import RetrievalError
from tuning.errors import TuningError

log = structlog.get_logger(__name__)


def create_app(container: Container | None = None) -> FastAPI:
    """The whole service around a container (made from the environment when none is given)."""
    owned = container or Container(Settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        owned.prepare()
        yield
        owned.close()

    app = FastAPI(
        title="Tandem",
        summary="Retrieval carries the facts, a tuned adapter carries the voice.",
        lifespan=lifespan,
    )
    app.state.container = owned
    app.include_router(openai, prefix="/v1", tags=["OpenAI-compatible"])
    for router in (
        workspaces,
        knowledge,
        documents,
        syncs,
        use_cases,
        calibrations,
        answers,
        feedback,
        datasets,
        tuning_runs,
        evaluations,
        decisions,
        jobs,
    ):
        app.include_router(router, prefix="/api/v1")
    _add_health(app)
    _add_error_handlers(app)
    app.add_middleware(
        AdmissionMiddleware,
        callers=owned.callers,
        admission=owned.admission,
        metrics=owned.metrics,
        max_body_bytes=owned.settings.max_request_bytes,
    )
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/metrics", tags=["operations"])
    async def metrics(request: Request) -> PlainTextResponse:
        """Counters for Prometheus."""
        container: Container = request.app.state.container
        return PlainTextResponse(
            container.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/health", tags=["operations"])
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operations"])
    def ready(request: Request) -> dict[str, str]:
        """Database and models are usable."""
        container: Container = request.app.state.container
        return container.ready()

    @app.get("/", include_in_schema=False)
    def root() -> PlainTextResponse:
        return PlainTextResponse("Tandem is running. API: /docs, /v1/chat/completions\n")


def _add_error_handlers(app: FastAPI) -> None:
    def render(request: Request, error: Exception) -> JSONResponse:
        expected = as_app_error(error)
        if expected is None:
            log.error("request_failed", path=request.url.path, exc_info=error)
            expected = AppError("an unexpected error; the log has it")
        wait = expected.retry_after
        headers = None if wait is None else {"Retry-After": str(wait)}
        return JSONResponse(
            problem(expected),
            status_code=expected.status,
            media_type="application/problem+json",
            headers=headers,
        )

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return render(request, error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        where = ".".join(str(part) for part in first.get("loc", ()))
        body = {
            "type": "about:blank",
            "title": "Invalid request",
            "status": 422,
            "detail": f"{where}: {first.get('msg', 'not valid')}",
        }
        body["error"] = {"message": body["detail"], "type": "invalid_request_error", "code": 422}
        return JSONResponse(body, status_code=422, media_type="application/problem+json")

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        """Unknown addresses and methods, which FastAPI itself refuses."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        known = AppError(str(getattr(error, "detail", error)))
        body = problem(known) | {"title": known.detail, "status": status}
        return JSONResponse(
            body,
            status_code=status,
            media_type="application/problem+json",
            headers=getattr(error, "headers", None),
        )

    for kind in (AppError, RetrievalError, TuningError, EvalError, OSError, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
