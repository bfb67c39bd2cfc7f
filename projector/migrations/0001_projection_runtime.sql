-- What the projection runtime keeps of its own, whatever the read models.
--
-- The read models' tables are not made here: the runtime makes them from their declarations, in
-- the schema `projection`, anew for every generation; the views in `read` show the live one.

CREATE SCHEMA IF NOT EXISTS annals;
CREATE SCHEMA IF NOT EXISTS projection;
CREATE SCHEMA IF NOT EXISTS read;

-- One building of a projection's tables. A rebuild makes a new one beside the live one.
CREATE TABLE annals.generation (
    projection  text COLLATE "C" NOT NULL,
    generation  integer NOT NULL,
    version     integer NOT NULL,
    state       text COLLATE "C" NOT NULL CHECK (state IN ('building', 'live')),
    -- Its tables and views as declared: a change without a new version is noticed.
    declaration text NOT NULL,
    tables      text[] NOT NULL,
    views       text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation)
);

CREATE UNIQUE INDEX generation_live ON annals.generation (projection) WHERE state = 'live';

-- How far a generation has read a partition. Changes with its rows in one transaction, with
-- compare-and-set on all but updated_at.
CREATE TABLE annals.checkpoint (
    projection       text COLLATE "C" NOT NULL,
    version          integer NOT NULL,
    generation       integer NOT NULL,
    partition        integer NOT NULL,
    log              uuid,
    record_version   integer NOT NULL,
    "offset"         bigint NOT NULL,
    record_hash      bytea NOT NULL,
    leader_epoch     integer,
    term             bigint NOT NULL,
    writer           uuid NOT NULL,
    head             bytea NOT NULL,
    position         bigint NOT NULL,
    last_recorded_at timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, partition),
    FOREIGN KEY (projection, generation) REFERENCES annals.generation ON DELETE CASCADE
);

-- Where a projection goes no further: written by the projector that met it, gone once its tables are
-- built anew, or once somebody says that the projector should try again.
CREATE TABLE annals.stop (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint,
    reason     text NOT NULL,
    stopped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, partition),
    FOREIGN KEY (projection, generation) REFERENCES annals.generation ON DELETE CASCADE
);
