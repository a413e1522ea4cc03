#!/usr/bin/env python3
"""A payment gateway as others run them, for the plugin `payment-gateway`: Python's standard library, and SQLite.

    demo/services/gateway.py --port 8300 --database gateway.db --token TOKEN

    POST /v1/charges   {reference, customer, amountCents, currency}   201 {id}, 402 {code, detail}, 409 while it runs
    POST /v1/refunds   {charge} or {key}                              201 {id}, 204 where nothing stands and nothing will

Under one Idempotency-Key one thing is done, and answered alike each time; a key that is refunded before it came stays refunded.
It is as good as gateways are: with --loses N every Nth request is acted upon and gets no answer, with --stalls N every Nth takes
--stall-seconds longer, with --fails N every Nth is answered 503 and nothing is done.
"""

import argparse
import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TABLES = """
CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charge (id TEXT PRIMARY KEY, key TEXT UNIQUE NOT NULL, reference TEXT NOT NULL, cents INTEGER NOT NULL,
    refunded INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS called_off (key TEXT PRIMARY KEY);
"""


def charge(db, key, order, limit):
    cents = order.get("amountCents") if isinstance(order, dict) else None
    if not isinstance(cents, int) or cents <= 0:
        return 400, {"code": "AMOUNT", "detail": "amountCents must be a whole number above 0"}
    if db.execute("SELECT 1 FROM called_off WHERE key = ?", (key,)).fetchone():
        return 402, {"code": "CALLED_OFF", "detail": "it was refunded before it came"}
    if cents > limit:
        return 402, {"code": "LIMIT_EXCEEDED", "detail": f"{cents} is above {limit}"}
    charge_id = f"ch-{key[:16]}"
    db.execute(
        "INSERT INTO charge (id, key, reference, cents) VALUES (?, ?, ?, ?)",
        (charge_id, key, str(order.get("reference")), cents),
    )
    return 201, {"id": charge_id}


def refund(db, _key, which, _limit):
    which = which if isinstance(which, dict) else {}
    if "charge" in which:
        found = db.execute("UPDATE charge SET refunded = 1 WHERE id = ? RETURNING id", (which["charge"],)).fetchone()
        return (201, {"id": found[0]}) if found else (404, {"code": "UNKNOWN", "detail": "there is no such charge"})
    if "key" not in which:
        return 400, {"code": "WHICH", "detail": "say which: charge or key"}
    db.execute("INSERT OR IGNORE INTO called_off (key) VALUES (?)", (which["key"],))
    found = db.execute("UPDATE charge SET refunded = 1 WHERE key = ? RETURNING id", (which["key"],)).fetchone()
    return (201, {"id": found[0]}) if found else (204, None)


class Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = None
    count = 0
    lock = threading.Lock()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with Gateway.lock:
            Gateway.count += 1
            number = Gateway.count
        every = lambda n: n and number % n == 0
        if self.asked.token and self.headers.get("Authorization") != f"Bearer {self.asked.token}":
            return self.reply(401, {"code": "UNAUTHORIZED", "detail": "a token is missing"})
        deed = {"/v1/charges": charge, "/v1/refunds": refund}.get(self.path)
        key = self.headers.get("Idempotency-Key")
        if deed is None or not key:
            return self.reply(404, {"code": "NO_ROUTE", "detail": "POST /v1/charges and /v1/refunds, with an Idempotency-Key"})
        if every(self.asked.fails):
            return self.reply(503, {"code": "BUSY", "detail": "not now"})
        status, answer = self.answer(deed, key, body)
        if every(self.asked.stalls):
            time.sleep(self.asked.stall_seconds)
        if every(self.asked.loses):
            # It is done, and nobody hears of it.
            self.close_connection = True
            return
        self.reply(status, answer)

    def answer(self, deed, key, body):
        try:
            wanted = json.loads(body)
        except ValueError:
            return 400, {"code": "JSON", "detail": "the body is not JSON"}
        db = sqlite3.connect(self.asked.database, isolation_level=None, timeout=30)
        try:
            # Two requests under one key come one after the other.
            db.execute("BEGIN IMMEDIATE")
            request = json.dumps([self.path, wanted], sort_keys=True)
            known = db.execute("SELECT request, status, body FROM answer WHERE key = ?", (key,)).fetchone()
            if known is None:
                status, answer = deed(db, key, wanted, self.asked.limit_cents)
                known = (request, status, json.dumps(answer))
                db.execute("INSERT INTO answer (key, request, status, body) VALUES (?, ?, ?, ?)", (key, *known))
            db.execute("COMMIT")
        finally:
            db.close()
        if known[0] != request:
            return 422, {"code": "KEY_REUSED", "detail": "this key was another request's"}
        return known[1], json.loads(known[2])

    def reply(self, status, answer):
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_):
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=8300)
    arguments.add_argument("--database", default="gateway.db")
    arguments.add_argument("--token", help="asked for in each request, as `Authorization: Bearer TOKEN`")
    arguments.add_argument("--limit-cents", type=int, default=100_000, help="what is above is declined")
    arguments.add_argument("--loses", type=int, metavar="N")
    arguments.add_argument("--stalls", type=int, metavar="N")
    arguments.add_argument("--stall-seconds", type=float, default=3.0)
    arguments.add_argument("--fails", type=int, metavar="N")
    Gateway.asked = arguments.parse_args()
    with sqlite3.connect(Gateway.asked.database) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(TABLES)
    server = ThreadingHTTPServer(("127.0.0.1", Gateway.asked.port), Gateway)
    print(f"gateway on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
