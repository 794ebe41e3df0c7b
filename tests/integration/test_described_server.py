"""The server against its own description: schemathesis asks what that allows, and more, and looks at each answer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.jobs import JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.tokens import Tokens
from tests import stub_worker
from tests.orthanc import free_port, until
from tests.shown import EYE, segmentation, shown

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 4
"""Of each operation."""


@pytest.fixture(scope="module")
def address(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("described"), free_port()
    results, _ = shown(folder / "made", segmentation("a", (24, 30), EYE))
    program = (sys.executable, "-S", stub_worker.__file__, str(results))
    model = Model("eyes", (str(trained[0]),))
    dispatch = Dispatch(JobFolder(folder / "jobs"), [model], ["cpu"], Limits(queue=10_000), program=program)
    server = uvicorn.Server(
        uvicorn.Config(make_app(dispatch, Tokens()), port=port, log_level="critical", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def test_each_answer_is_one_that_the_description_allows(address: str) -> None:
    """Whatever is asked: no error of the server, and no status, type or body that is not described."""
    described = schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    asked = [ask(operation, address) for operation in operations if "events" not in operation.path]  # a stream
    assert sum(asked) > 80


def ask(operation: Any, address: str) -> int:
    """Ask some of what an operation allows, and count."""
    counted = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def hold(case: Any) -> None:
        nonlocal counted
        counted += 1
        case.validate_response(case.call(base_url=address, timeout=20), checks=CHECKS)

    hold()
    return counted
