-- Versions of plugins that were taken out of service, with the reason.
ALTER TABLE admitted ADD COLUMN quarantined TEXT;
