#!/usr/bin/env python3
"""A payment service that takes part in sagas: Python's standard library, and SQLite for what must not be forgotten.

    demo/services/payment.py --port 8200 --database payments.db

Its one rule: what is answered is written in the same transaction as the deed. So whoever asks again under a key gets the
answer that was given, whatever happened in between; and what was called off before it came stays called off.
"""

import argparse
import json
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT_CENTS = 100_000
TABLES = """
CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, status INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charge (saga TEXT PRIMARY KEY, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS called_off (saga TEXT PRIMARY KEY);
"""
EVENT = {"Content-Type": "application/cloudevents+json"}
PROBLEM = {"Content-Type": "application/problem+json"}


def event(kind, data):
    return {"specversion": "1.0", "type": kind, "source": "/payments", "id": "1", "data": data}


def problem(status, code, detail, **more):
    return status, PROBLEM, {"code": code, "detail": detail, **more}


def charge(db, saga, order):
    if not (isinstance(order, dict) and isinstance(order.get("amountCents"), int)):
        return problem(400, "not-an-order", "amountCents must be a whole number")
    if db.execute("SELECT 1 FROM called_off WHERE saga = ?", (saga,)).fetchone():
        return problem(422, "called-off", "the order was called off before it came")
    cents = order["amountCents"]
    if cents > LIMIT_CENTS:
        failed = {"orderId": order.get("orderId"), "code": "LIMIT_EXCEEDED", "detail": f"{cents} is above {LIMIT_CENTS}"}
        return problem(422, "LIMIT_EXCEEDED", failed["detail"], events=[event("PaymentFailed", failed)])
    db.execute("INSERT INTO charge (saga, cents) VALUES (?, ?)", (saga, cents))
    fields = ("orderId", "sku", "quantity", "amountCents")
    processed = {"paymentId": f"p-{saga}", **{name: order.get(name) for name in fields}}
    return 201, EVENT, event("PaymentProcessed", processed)


def refund(db, saga, _step):
    db.execute("INSERT OR IGNORE INTO called_off (saga) VALUES (?)", (saga,))
    charged = db.execute("DELETE FROM charge WHERE saga = ? RETURNING cents", (saga,)).fetchone()
    if charged is None:
        return 200, {"Sagahost-Outcome": "nothing-to-undo"}, {}
    refunded = {"orderId": saga, "paymentId": f"p-{saga}", "amountCents": charged[0]}
    return 200, {"Sagahost-Outcome": "undone", **EVENT}, event("PaymentRefunded", refunded)


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    database = "payments.db"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        deeds = {"/payments": charge, "/payments/cancel": refund}
        deed, key = deeds.get(self.path), self.headers.get("Idempotency-Key")
        if deed is None or key is None:
            return self.reply(404, {}, "")
        db = sqlite3.connect(self.database, isolation_level=None)
        try:
            # Two requests under one key, and of one saga, come one after the other.
            db.execute("BEGIN IMMEDIATE")
            known = db.execute("SELECT status, headers, body FROM answer WHERE key = ?", (key,)).fetchone()
            if known is None:
                status, headers, answer = self.do(db, deed, body)
                known = (status, json.dumps(headers), json.dumps(answer))
                db.execute("INSERT INTO answer (key, status, headers, body) VALUES (?, ?, ?, ?)", (key, *known))
            db.execute("COMMIT")
        finally:
            db.close()
        self.reply(known[0], json.loads(known[1]), known[2])

    def do(self, db, deed, body):
        try:
            message = json.loads(body)
        except ValueError:
            return problem(400, "not-json", "the body is not JSON")
        saga = message.get("sagaId") if deed is refund and isinstance(message, dict) else self.headers.get("ce-sagaid")
        return deed(db, saga, message)

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        try:
            self.end_headers()
            self.wfile.write(body.encode())
        except ConnectionError:
            # Whoever asked is gone. The answer is kept, and is given again when the key comes again.
            self.close_connection = True

    def log_message(self, *_):
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=8200)
    arguments.add_argument("--database", default="payments.db")
    asked = arguments.parse_args()
    Service.database = asked.database
    with sqlite3.connect(asked.database) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(TABLES)
    server = ThreadingHTTPServer(("127.0.0.1", asked.port), Service)
    print(f"payments on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
