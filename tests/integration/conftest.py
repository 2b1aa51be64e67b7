"""Marks the integration tests; a folder with a pipe for those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AWS
from tests.integration.shell import PIPELINES, Shell
from tests.integration.support import child_environment
from tests.servers import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; the hook sees the tests of all folders."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without an account, without colours and without a broker."""
    left_out = ("SQSPIPES_", "AWS_", "NO_COLOR", "FORCE_COLOR", "TTY_", "COLUMNS", "LINES")
    kept = {key: value for key, value in child_environment().items() if not key.startswith(left_out)}
    nothing = {key: str(tmp_path / "none") for key in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    return {**kept, **nothing, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def shell(tmp_path: Path, domain: str, environment: dict[str, str]) -> Shell:
    """A folder with a pipe on SQLite."""
    return _shell(tmp_path, domain, environment, {"broker": f"sqlite:///{tmp_path}/pipe.db"})


@pytest.fixture(params=["sqlite", "sqs"])
def any_shell(
    request: pytest.FixtureRequest, tmp_path: Path, domain: str, environment: dict[str, str]
) -> Shell:
    """A folder with a pipe, on each broker that processes can share."""
    if request.param == "sqlite":
        found: Shell = request.getfixturevalue("shell")
        return found
    server: Server = request.getfixturevalue("ministack")
    account = {"AWS_ACCESS_KEY_ID": AWS["aws_key"], "AWS_SECRET_ACCESS_KEY": AWS["aws_secret"]}
    there = {"AWS_REGION": AWS["aws_region"], "AWS_ENDPOINT_URL_SQS": server.url}
    arguments = {"broker": "sqs://", "endpoint_url": server.url, **AWS}
    return _shell(tmp_path, domain, {**environment, **account, **there}, arguments)


def _shell(folder: Path, domain: str, environment: dict[str, str], arguments: dict[str, Any]) -> Shell:
    shell = Shell(folder, domain, arguments, {**environment, "SQSPIPES_BROKER": arguments["broker"]})
    shell.write("pipelines.py", PIPELINES.format(domain=domain))
    return shell
