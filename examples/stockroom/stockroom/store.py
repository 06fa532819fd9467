"""Items, their stock and their last known price, in SQLite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    sku   TEXT PRIMARY KEY,
    name  TEXT NOT NULL,
    stock INTEGER NOT NULL CHECK (stock >= 0),
    cents INTEGER
)
"""


class StoreError(Exception):
    """The store could not do what was asked."""


class UnknownItem(StoreError):
    """There is no item of that SKU."""


class ItemExists(StoreError):
    """There is an item of that SKU already."""


class OutOfStock(StoreError):
    """There is less in stock than was asked for."""


class StoreBusy(StoreError):
    """Another process has kept the database locked for too long."""


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    name: str
    stock: int = 0
    cents: int | None = None


class Store:
    """One connection, shared by threads: each call is a transaction of its own."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._db.execute(SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                    raise StoreBusy(f"{self.path.name} is locked") from error
                raise
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, item: Item) -> None:
        with self._transaction() as db:
            try:
                db.execute(
                    "INSERT INTO items VALUES (?, ?, ?, ?)",
                    (item.sku, item.name, item.stock, item.cents),
                )
            except sqlite3.IntegrityError as error:
                raise ItemExists(item.sku) from error

    def get(self, sku: str) -> Item:
        with self._transaction() as db:
            row = db.execute("SELECT * FROM items WHERE sku = ?", (sku,)).fetchone()
        if row is None:
            raise UnknownItem(sku)
        return Item(*row)

    def all(self) -> list[Item]:
        with self._transaction() as db:
            return [Item(*row) for row in db.execute("SELECT * FROM items ORDER BY sku")]

    def rename(self, sku: str, name: str) -> None:
        self._update("UPDATE items SET name = ? WHERE sku = ?", name, sku)

    def set_price(self, sku: str, cents: int) -> None:
        self._update("UPDATE items SET cents = ? WHERE sku = ?", cents, sku)

    def put_back(self, sku: str, quantity: int) -> None:
        self._update("UPDATE items SET stock = stock + ? WHERE sku = ?", quantity, sku)

    def remove(self, sku: str) -> None:
        self._update("DELETE FROM items WHERE sku = ?", sku)

    def take(self, sku: str, quantity: int) -> None:
        """Take `quantity` out of stock: all of it, or `OutOfStock`."""
        with self._transaction() as db:
            row = db.execute("SELECT stock FROM items WHERE sku = ?", (sku,)).fetchone()
            if row is None:
                raise UnknownItem(sku)
            if row[0] < quantity:
                raise OutOfStock(f"{sku}: {quantity} wanted, {row[0]} in stock")
            db.execute("UPDATE items SET stock = stock - ? WHERE sku = ?", (quantity, sku))

    def _update(self, statement: str, *values: str | int) -> None:
        with self._transaction() as db:
            if not db.execute(statement, values).rowcount:
                raise UnknownItem(values[-1])
