-- What the journal says of itself. One row.
CREATE TABLE journal (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    id            TEXT    NOT NULL,
    app           TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    last_batch    INTEGER NOT NULL,
    confirmed     INTEGER NOT NULL,
    next_saga     INTEGER NOT NULL,
    anchor_topic  TEXT,
    anchor_number INTEGER
) STRICT;

-- Who owned the journal from which batch on. A batch was journaled by the newest owner that began at or below it.
CREATE TABLE incarnation (
    epoch       INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL,
    first_batch INTEGER NOT NULL
) STRICT;

-- In order of arrival. An index over the ids themselves would be several times slower: they come in random order.
CREATE TABLE saga (
    key              INTEGER PRIMARY KEY,
    hash             INTEGER NOT NULL,
    status           INTEGER NOT NULL,
    updated          INTEGER NOT NULL,
    wake_at          INTEGER,
    deadline_at      INTEGER,
    remove_at        INTEGER,
    waits_for_plugin INTEGER NOT NULL,
    in_doubt         INTEGER NOT NULL,
    digests          INTEGER,
    id               TEXT    NOT NULL,
    notes            TEXT,
    bytes            BLOB    NOT NULL
) STRICT;
CREATE INDEX saga_by_hash ON saga (hash);
CREATE INDEX saga_by_status ON saga (status);
CREATE INDEX saga_by_wake ON saga (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX saga_by_deadline ON saga (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX saga_by_removal ON saga (remove_at) WHERE remove_at IS NOT NULL;
CREATE INDEX saga_parked ON saga (waits_for_plugin) WHERE waits_for_plugin = 1;
CREATE INDEX saga_in_doubt ON saga (in_doubt) WHERE in_doubt = 1;

-- Finds sagas by a note: hash of name and value.
CREATE TABLE note (
    hash INTEGER NOT NULL,
    saga INTEGER NOT NULL,
    PRIMARY KEY (hash, saga)
) STRICT, WITHOUT ROWID;

-- Sets of plugin digests, with how many sagas may still need them.
CREATE TABLE digest_set (
    id      INTEGER PRIMARY KEY,
    digests TEXT    NOT NULL UNIQUE,
    sagas   INTEGER NOT NULL
) STRICT;

CREATE TABLE spilled_event (
    saga  INTEGER NOT NULL,
    event BLOB    NOT NULL,
    data  BLOB    NOT NULL,
    PRIMARY KEY (saga, event)
) STRICT, WITHOUT ROWID;

CREATE TABLE spilled_history (
    saga  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    entry TEXT    NOT NULL,
    PRIMARY KEY (saga, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE store (
    participant TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       BLOB NOT NULL,
    PRIMARY KEY (participant, key)
) STRICT;

CREATE TABLE counter (
    participant TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    value       INTEGER NOT NULL,
    PRIMARY KEY (participant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE letter (
    seq            INTEGER PRIMARY KEY,
    key            TEXT    NOT NULL UNIQUE,
    saga           TEXT,
    participant    TEXT,
    kind           TEXT,
    code           TEXT    NOT NULL,
    detail         TEXT    NOT NULL,
    attempts       INTEGER NOT NULL,
    plugin_version TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    origin_topic   TEXT,
    origin_number  INTEGER,
    origin_offset  INTEGER,
    closed         TEXT,
    letter         TEXT,
    data           BLOB,
    record         BLOB    NOT NULL
) STRICT;
CREATE INDEX letter_by_saga ON letter (saga) WHERE saga IS NOT NULL;
CREATE INDEX letter_open ON letter (code, participant) WHERE closed IS NULL;

CREATE TABLE position (
    topic          TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    next           INTEGER NOT NULL,
    last_offset    INTEGER,
    last_timestamp INTEGER,
    PRIMARY KEY (topic, number)
) STRICT, WITHOUT ROWID;

-- One row a batch: its records and positions.
CREATE TABLE outbox (
    batch INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;

CREATE TABLE outbox_skip (
    batch  INTEGER NOT NULL,
    record INTEGER NOT NULL,
    reason TEXT    NOT NULL,
    PRIMARY KEY (batch, record)
) STRICT, WITHOUT ROWID;

CREATE TABLE admitted (
    participant TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    manifest    TEXT    NOT NULL,
    admitted    INTEGER NOT NULL,
    since       INTEGER NOT NULL,
    serving     INTEGER NOT NULL,
    PRIMARY KEY (participant, digest)
) STRICT;

CREATE TABLE command (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    saga    TEXT NOT NULL,
    command TEXT NOT NULL
) STRICT;
