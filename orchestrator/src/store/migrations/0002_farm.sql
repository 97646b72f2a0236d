ALTER TABLE builds ADD COLUMN terms TEXT;
ALTER TABLE builds ADD COLUMN cancel_at TEXT;
UPDATE builds SET terms = '{"retry":null,"max_parallel":null,"fail_fast":false}' WHERE planned = 1;

ALTER TABLE jobs ADD COLUMN face TEXT NOT NULL
    DEFAULT '{"name":"","axes":{},"allow_failure":false,"group":null}';
ALTER TABLE jobs ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN ending TEXT;

ALTER TABLE agents ADD COLUMN drained_by TEXT;

CREATE TABLE timetables (
    repository TEXT PRIMARY KEY,
    timetable  TEXT NOT NULL
) WITHOUT ROWID;
