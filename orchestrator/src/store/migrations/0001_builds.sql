CREATE TABLE builds (
    number       INTEGER PRIMARY KEY,
    spec         TEXT NOT NULL,
    repository   TEXT NOT NULL,
    submitted_by TEXT NOT NULL,
    submitted_at TEXT NOT NULL,
    state        TEXT NOT NULL DEFAULT 'queued',
    standing     TEXT NOT NULL DEFAULT '{"state":"queued"}',
    started_at   TEXT,
    finished_at  TEXT,
    commit_id    TEXT,
    cancel       TEXT,
    planned      INTEGER NOT NULL DEFAULT 0,
    events       INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX builds_of_repository ON builds (repository, number);
CREATE INDEX builds_unfinished ON builds (number) WHERE state <> 'finished';
CREATE INDEX builds_of_state ON builds (state, number);

CREATE TABLE idempotency (
    key   TEXT PRIMARY KEY,
    build INTEGER NOT NULL UNIQUE REFERENCES builds (number)
) WITHOUT ROWID;

CREATE TABLE jobs (
    build     INTEGER NOT NULL REFERENCES builds (number),
    idx       INTEGER NOT NULL,
    state     TEXT NOT NULL,
    standing  TEXT NOT NULL,
    labels    TEXT NOT NULL,
    losses    INTEGER NOT NULL,
    queued_at TEXT NOT NULL,
    attempt   TEXT,
    PRIMARY KEY (build, idx)
) WITHOUT ROWID;

CREATE TABLE attempts (
    id          TEXT PRIMARY KEY,
    build       INTEGER NOT NULL REFERENCES builds (number),
    job         INTEGER NOT NULL,
    agent       TEXT NOT NULL,
    agent_name  TEXT NOT NULL,
    instance    TEXT NOT NULL,
    state       TEXT NOT NULL,
    events      INTEGER NOT NULL,
    outcome     TEXT,
    accepted_at TEXT NOT NULL,
    ended_at    TEXT
) WITHOUT ROWID;

CREATE TABLE stages (
    attempt  TEXT NOT NULL REFERENCES attempts (id),
    position INTEGER NOT NULL,
    name     TEXT NOT NULL,
    stage    TEXT NOT NULL,
    command  TEXT,
    PRIMARY KEY (attempt, position)
) WITHOUT ROWID;

CREATE TABLE events (
    build INTEGER NOT NULL REFERENCES builds (number),
    seq   INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (build, seq)
) WITHOUT ROWID;

CREATE TABLE agents (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    instance     TEXT NOT NULL,
    version      TEXT NOT NULL,
    slots        INTEGER NOT NULL,
    labels       TEXT NOT NULL,
    connected_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
