-- Sagas that the host gave up on, with what their rows said before, for the way back.
CREATE TABLE quarantine (
    id               TEXT PRIMARY KEY,
    why              TEXT    NOT NULL,
    had_row          INTEGER NOT NULL,
    status           INTEGER NOT NULL,
    wake_at          INTEGER,
    deadline_at      INTEGER,
    remove_at        INTEGER,
    waits_for_plugin INTEGER NOT NULL,
    in_doubt         INTEGER NOT NULL
) STRICT;

-- Closed letters are removed some time after they were closed.
ALTER TABLE letter ADD COLUMN closed_at INTEGER;
UPDATE letter SET closed_at = at WHERE closed IS NOT NULL;
CREATE INDEX letter_by_closing ON letter (closed_at) WHERE closed_at IS NOT NULL;
