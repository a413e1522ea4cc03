-- What survives a quiet time in which the broker forgets the app's transactional id and offsets.
ALTER TABLE journal ADD COLUMN not_out INTEGER;
ALTER TABLE journal ADD COLUMN touch_due INTEGER;
-- When the batch's first chain ended; 0 in rows of earlier versions.
ALTER TABLE outbox ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
-- 0: the row stays out. 1: its value does.
ALTER TABLE outbox_skip ADD COLUMN what INTEGER NOT NULL DEFAULT 0;
