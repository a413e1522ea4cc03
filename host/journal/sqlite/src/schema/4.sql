-- Which file a version came from and with which configuration (its hash) it served last.
ALTER TABLE admitted ADD COLUMN file TEXT NOT NULL DEFAULT '';
ALTER TABLE admitted ADD COLUMN config TEXT NOT NULL DEFAULT '';

-- Participants that an operator paused, with the reason.
CREATE TABLE paused (
    participant TEXT PRIMARY KEY,
    why         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to plugins, for people.
CREATE TABLE plugin_deed (
    id          INTEGER PRIMARY KEY,
    participant TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    what        TEXT    NOT NULL
) STRICT;
CREATE INDEX plugin_deed_by_participant ON plugin_deed (participant, id);
