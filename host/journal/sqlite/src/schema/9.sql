-- Letters of records that could not be decoded are bounded: the bytes of each record, and what went, by code.
ALTER TABLE letter ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE letter SET bytes = length(record) WHERE kind IS NULL;
CREATE INDEX letter_undecodable ON letter (at, bytes) WHERE kind IS NULL AND closed IS NULL;

CREATE TABLE letter_removed (
    code    TEXT PRIMARY KEY,
    letters INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    last    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
