-- The topic that a position belongs to: a later one of the same name has another id. NULL: not known.
ALTER TABLE position ADD COLUMN topic_id TEXT;
