#!/usr/bin/env python3
"""A payment service that takes part in sagas: FastAPI, and SQLite for what must not be forgotten.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python payment.py --port 8200 --database payments.db

Its one rule: what is answered is written in the same transaction as the deed. So whoever asks again under a key gets the
answer that was given, whatever happened in between; and what was called off before it came stays called off.
"""

import argparse
import json
import socket
import sqlite3
from typing import Annotated, Any, Callable

import uvicorn
from fastapi import FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, StrictInt

LIMIT_CENTS = 100_000
TABLES = """
CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, status INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charge (saga TEXT PRIMARY KEY, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS called_off (saga TEXT PRIMARY KEY);
"""
EVENT = {"Content-Type": "application/cloudevents+json"}
PROBLEM = {"Content-Type": "application/problem+json"}

app = FastAPI(title="Payments")


class Order(BaseModel):
    """What the service needs of an `OrderCreated`."""

    orderId: str
    sku: str
    quantity: StrictInt
    amountCents: StrictInt


class Step(BaseModel):
    """Of what is to be undone, the saga is enough here: it has one payment."""

    sagaId: str


Answer = tuple[int, dict[str, str], Any]
Key = Annotated[str, Header(alias="Idempotency-Key")]
Saga = Annotated[str, Header(alias="ce-sagaid")]


def event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"specversion": "1.0", "type": kind, "source": "/payments", "id": "1", "data": data}


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    return status, PROBLEM, {"code": code, "detail": detail, **more}


def once(key: str, deed: Callable[[sqlite3.Connection], Answer]) -> Response:
    """The answer that the key was given, or else the deed, and its answer."""
    db = sqlite3.connect(app.state.database, isolation_level=None)
    try:
        # Two requests under one key, and of one saga, come one after the other.
        db.execute("BEGIN IMMEDIATE")
        known = db.execute("SELECT status, headers, body FROM answer WHERE key = ?", (key,)).fetchone()
        if known is None:
            status, headers, body = deed(db)
            known = (status, json.dumps(headers), json.dumps(body))
            db.execute("INSERT INTO answer (key, status, headers, body) VALUES (?, ?, ?, ?)", (key, *known))
        db.execute("COMMIT")
    finally:
        db.close()
    return Response(status_code=known[0], headers=json.loads(known[1]), content=known[2])


@app.post("/payments")
def pay(order: Order, key: Key, saga: Saga) -> Response:
    return once(key, lambda db: charge(db, saga, order))


@app.post("/payments/cancel")
def cancel(step: Step, key: Key) -> Response:
    return once(key, lambda db: refund(db, step.sagaId))


@app.exception_handler(RequestValidationError)
def invalid(_: Request, error: RequestValidationError) -> Response:
    """It would be refused as often as it came, so it is not kept."""
    faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    status, headers, body = problem(400, "not-an-order", faults)
    return Response(status_code=status, headers=headers, content=json.dumps(body))


def charge(db: sqlite3.Connection, saga: str, order: Order) -> Answer:
    if db.execute("SELECT 1 FROM called_off WHERE saga = ?", (saga,)).fetchone():
        return problem(422, "called-off", "the order was called off before it came")
    if order.amountCents > LIMIT_CENTS:
        detail = f"{order.amountCents} is above {LIMIT_CENTS}"
        failed = {"orderId": order.orderId, "code": "LIMIT_EXCEEDED", "detail": detail}
        return problem(422, "LIMIT_EXCEEDED", detail, events=[event("PaymentFailed", failed)])
    db.execute("INSERT INTO charge (saga, cents) VALUES (?, ?)", (saga, order.amountCents))
    return 201, EVENT, event("PaymentProcessed", {"paymentId": f"p-{saga}", **order.model_dump()})


def refund(db: sqlite3.Connection, saga: str) -> Answer:
    db.execute("INSERT OR IGNORE INTO called_off (saga) VALUES (?)", (saga,))
    charged = db.execute("DELETE FROM charge WHERE saga = ? RETURNING cents", (saga,)).fetchone()
    if charged is None:
        return 200, {"Sagahost-Outcome": "nothing-to-undo"}, {}
    refunded = {"orderId": saga, "paymentId": f"p-{saga}", "amountCents": charged[0]}
    return 200, {"Sagahost-Outcome": "undone", **EVENT}, event("PaymentRefunded", refunded)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=8200)
    arguments.add_argument("--database", default="payments.db")
    asked = arguments.parse_args()
    app.state.database = asked.database
    with sqlite3.connect(asked.database) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(TABLES)
    # Whoever reads that it is there can connect.
    listener = socket.create_server(("127.0.0.1", asked.port), backlog=128)
    print(f"payments on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
