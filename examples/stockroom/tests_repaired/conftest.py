from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from stockroom.app import Config, create_app
from stockroom.store import Item, Store
from stockroom.testing import ApiClient, PriceStub
from stockroom.worker import AuditLog


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "stock.db", timeout=0.05) as store:
        store.add(Item("BOLT-8", "Bolt M8", stock=10))
        yield store


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "audit.csv") as audit:
        yield audit


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[PriceStub]:
    async with PriceStub({"BOLT-8": 45}) as stub:
        yield stub


@pytest_asyncio.fixture
async def api(tmp_path: Path, upstream: PriceStub) -> AsyncIterator[ApiClient]:
    config = Config(
        database=tmp_path / "api.db", audit=tmp_path / "audit.csv", prices_url=upstream.url
    )
    async with TestClient(TestServer(create_app(config))) as client:
        yield client


@pytest.fixture(scope="session")
def export_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stockroom-exports-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def clerks() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="clerk") as pool:
        yield pool
