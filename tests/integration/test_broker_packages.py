"""A broker of another package is found by its entry point, and used like one of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sqspipes import OptionError, TaskClient, open_broker
from tests.integration.support import ROOT, Seen

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install("folder = folder_broker:FolderBroker")`` installs the example as a package with this entry point."""

    def install(entry_point: str) -> None:
        site = tmp_path / "site"
        described = site / "folder_broker-1.0.dist-info"
        described.mkdir(parents=True)
        shutil.copy(ROOT / "examples" / "folder_broker.py", site)
        (described / "METADATA").write_text("Metadata-Version: 2.1\nName: folder_broker\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[sqspipes.brokers]\n{entry_point}\n")
        monkeypatch.syspath_prepend(str(site))

    return install


def test_pipe_runs_on_a_broker_of_another_package(install: Install, domain: str, tmp_path: Path) -> None:
    install("folder = folder_broker:FolderBroker")
    seen = Seen()

    def double(value: int) -> int:
        return 2 * value

    with TaskClient(domain, broker=f"folder://{tmp_path}/queues").register_tasks(
        [double, seen.take]
    ) as client:
        client.put_many(range(30))
        assert client.run(drain=True).done == 60
        assert [level.waiting for level in client.status().levels] == [0, 0]
    assert sorted(seen.values) == list(range(0, 60, 2))


def test_schemes_of_packages_are_named_where_one_is_wrong(install: Install) -> None:
    install("folder = folder_broker:FolderBroker")
    with pytest.raises(OptionError, match=r"did you mean 'folder'\?.* and redis://host:port/db, folder://$"):
        open_broker("foldr:///queues")


def test_entry_point_that_cannot_be_loaded_is_named(install: Install) -> None:
    install("folder = folder_broker:Missing")
    with pytest.raises(
        OptionError, match=r"entry point folder = folder_broker:Missing cannot be loaded: .*Missing"
    ):
        open_broker("folder:///queues")


def test_entry_point_that_makes_something_else_is_named(install: Install) -> None:
    install("folder = pathlib:Path")
    with pytest.raises(OptionError, match=r"folder = pathlib:Path returned a \w*Path: allowed is a sqspipes"):
        open_broker("folder:///queues")
