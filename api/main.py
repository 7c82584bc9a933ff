"""The application: routes, problems, metrics, and the database for as long as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import DBAPIError
from starlette.responses import RedirectResponse

from api import problems
from api.conditional import Answers
from api.headed import Headed
from api.metrics_middleware import Measured, expect
from api.queries import CONNECTIONS, Results
from api.routes import generations, health, lineage, payments, top_sales, top_salesmen
from api.strict import plain_address
from contracts.settings import ApiSettings
from observability import logs

_log = logs.get(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(settings: ApiSettings, clock: Callable[[], datetime] = _now) -> FastAPI:
    """Build the application; it opens connections when it starts, and starts without a database too.

    `clock` decides which windows have begun.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        results = Results(settings.results_db_url.get_secret_value(), clock)
        # As many threads as connections: a request with a thread need not wait for a connection.
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
        try:
            await anyio.to_thread.run_sync(results.warm)
        except DBAPIError as error:
            _log.warning("started without the results database", reason=str(error.orig).strip())
        app.state.results = results
        app.state.answers = Answers(results)
        yield
        results.close()

    # Swagger UI from this process: the page works without internet access.
    app = FastAPIOffline(
        title="ElectroRed",
        summary="Top sales by city, top salesmen by country, and which sales are paid; live.",
        version="1",
        redoc_url=None,
        # A redirect would name the host that the request names.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    problems.install(app)
    problems.describe(app)
    app.add_middleware(Measured)
    app.add_middleware(Headed)
    for routes in (top_sales, top_salesmen, payments, generations, lineage):
        app.include_router(routes.router, dependencies=[Depends(plain_address)])
        expect(routes.router.routes)
    # Probes and scrapes may have parameters of their own.
    app.include_router(health.router)
    expect(health.router.routes)

    @app.get("/", include_in_schema=False)
    async def to_docs() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
