-- Which batch of which stream wrote a key last: what a batch read must still be so when it is journaled. What an older
-- host wrote counts as written before the first batch.
ALTER TABLE store ADD COLUMN stream INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
