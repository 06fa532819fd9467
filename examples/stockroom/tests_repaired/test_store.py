from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from stockroom.store import Item, ItemExists, OutOfStock, Store, StoreBusy, UnknownItem

LOCK_DATABASE = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(20)
"""


@pytest.fixture
def reader(store: Store) -> Iterator[sqlite3.Connection]:
    """Sees only what the store has committed."""
    with closing(sqlite3.connect(store.path)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def test_added_item_can_be_got(store: Store) -> None:
    store.add(Item("NUT-8", "Nut M8", stock=3))
    assert store.get("NUT-8") == Item("NUT-8", "Nut M8", stock=3)


def test_sku_is_unique(store: Store) -> None:
    with pytest.raises(ItemExists):
        store.add(Item("BOLT-8", "Another bolt"))


def test_taken_stock_is_committed(store: Store, reader: sqlite3.Connection) -> None:
    store.take("BOLT-8", 4)
    row = reader.execute("SELECT stock FROM items WHERE sku = 'BOLT-8'").fetchone()
    assert row["stock"] == 6


def test_never_takes_more_than_there_is(store: Store) -> None:
    with pytest.raises(OutOfStock, match="11 wanted, 10 in stock"):
        store.take("BOLT-8", 11)
    assert store.get("BOLT-8").stock == 10


def test_clerks_never_oversell(store: Store, clerks: ThreadPoolExecutor) -> None:
    def sell(_: int) -> bool:
        try:
            store.take("BOLT-8", 1)
        except OutOfStock:
            return False
        return True

    assert sum(clerks.map(sell, range(25))) == 10
    assert store.get("BOLT-8").stock == 0


def test_removed_item_is_unknown(store: Store) -> None:
    store.remove("BOLT-8")
    with pytest.raises(UnknownItem):
        store.get("BOLT-8")


def test_locked_database_is_reported(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCK_DATABASE, str(store.path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(StoreBusy):
                store.take("BOLT-8", 1)
        finally:
            other.kill()
