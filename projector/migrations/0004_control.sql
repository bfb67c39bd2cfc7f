-- Who runs which read model where, and what operators asked for.

-- A generation that a rebuild made goes from building to ready (it has reached the live one) to live.
-- The one that was live before is retired: it is kept, and kept current, for a while.
ALTER TABLE annals.generation DROP CONSTRAINT generation_state_check;
ALTER TABLE annals.generation
    ADD CONSTRAINT generation_state_check CHECK (state IN ('building', 'ready', 'live', 'retired')),
    -- Name, version and a digest of the declarations: only a program with the same rule writes it.
    ADD COLUMN rule text COLLATE "C" NOT NULL DEFAULT '',
    -- What a building is for: to replace the live one when it is ready, to wait, or to be compared.
    ADD COLUMN purpose text COLLATE "C" NOT NULL DEFAULT 'switch'
        CHECK (purpose IN ('switch', 'wait', 'verify')),
    -- Whether a process began to build it because it has a new version, and not an operator.
    ADD COLUMN by_itself boolean NOT NULL DEFAULT false,
    -- Raised by whatever changes rows without moving a checkpoint, and by a switch.
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    -- How many rows annals.parked has of it: each query asks, and must not count.
    ADD COLUMN parked bigint NOT NULL DEFAULT 0,
    -- Whether it may go only as far as annals.ceiling says.
    ADD COLUMN has_ceiling boolean NOT NULL DEFAULT false,
    ADD COLUMN comparison jsonb,
    -- For how long the one that it replaces is kept.
    ADD COLUMN keep_seconds bigint NOT NULL DEFAULT 0,
    ADD COLUMN keep_until timestamptz,
    -- What the projection's own SQL added to the tables: it goes away with them.
    ADD COLUMN prepared text[] NOT NULL DEFAULT '{}',
    -- When it was last compared with the log, and what was found.
    ADD COLUMN verified_at timestamptz,
    ADD COLUMN verified jsonb;

-- The last number that a generation of a projection got: none is used twice, also if it was dropped.
CREATE TABLE annals.numbered (
    projection text COLLATE "C" PRIMARY KEY,
    last       integer NOT NULL
);

COMMENT ON TABLE annals.numbered IS 'The last number that a generation of each projection got.';
COMMENT ON COLUMN annals.numbered.projection IS 'The projection.';
COMMENT ON COLUMN annals.numbered.last IS 'The number.';

-- The processes that run projections. One that has not been seen for two seconds is dead.
CREATE TABLE annals.member (
    member      uuid PRIMARY KEY,
    name        text NOT NULL,
    rules       text[] NOT NULL,
    builds_only boolean NOT NULL,
    -- The generations and partitions that it must leave to a newer program.
    too_old     text[] NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which process takes up which partition for which generation. A lease avoids double work; what
-- keeps the rows exact is the compare-and-set on the checkpoint.
CREATE TABLE annals.lease (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    partition  integer NOT NULL,
    member     uuid NOT NULL REFERENCES annals.member ON DELETE CASCADE,
    taken_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why it does not move; null if it does.
    trouble    text,
    PRIMARY KEY (projection, generation, partition),
    FOREIGN KEY (projection, generation) REFERENCES annals.generation ON DELETE CASCADE
);

CREATE INDEX lease_member ON annals.lease (member);

-- How far a building may go: the places of the live generation that it is compared with.
CREATE TABLE annals.ceiling (LIKE annals.checkpoint INCLUDING DEFAULTS INCLUDING COMMENTS,
    PRIMARY KEY (projection, generation, partition),
    FOREIGN KEY (projection, generation) REFERENCES annals.generation ON DELETE CASCADE
);

-- Projections that an operator paused.
CREATE TABLE annals.pause (
    projection text COLLATE "C" PRIMARY KEY,
    paused_at  timestamptz NOT NULL DEFAULT now(),
    paused_by  text NOT NULL,
    reason     text NOT NULL
);

-- Rules that operators cancelled or rolled back: their read models are not built again by themselves.
CREATE TABLE annals.declined (
    projection  text COLLATE "C" NOT NULL,
    rule        text COLLATE "C" NOT NULL,
    declined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, rule)
);

-- What operators did, when and why.
CREATE TABLE annals.control (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    projection text COLLATE "C" NOT NULL,
    action     text COLLATE "C" NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL,
    detail     text
);

COMMENT ON COLUMN annals.generation.state IS 'live: the views in the schema read show it; building: a rebuild fills it; ready: it has reached the live one; retired: it was live before.';
COMMENT ON COLUMN annals.generation.rule IS 'The rule that fills it: name, version and a digest of its declarations.';
COMMENT ON COLUMN annals.generation.purpose IS 'What happens when it is ready: switch, wait, or verify (it is compared and dropped).';
COMMENT ON COLUMN annals.generation.by_itself IS 'Whether a process began to build it because it has a new version, and not an operator.';
COMMENT ON COLUMN annals.generation.epoch IS 'Raised when rows change although no checkpoint moves.';
COMMENT ON COLUMN annals.generation.parked IS 'How many streams it has parked.';
COMMENT ON COLUMN annals.generation.has_ceiling IS 'Whether it may go only as far as annals.ceiling says.';
COMMENT ON COLUMN annals.generation.comparison IS 'How it compared with the live generation.';
COMMENT ON COLUMN annals.generation.keep_seconds IS 'For how long the generation that it replaces is kept.';
COMMENT ON COLUMN annals.generation.verified_at IS 'When it was last compared with the log.';
COMMENT ON COLUMN annals.generation.verified IS 'What that comparison found.';
COMMENT ON COLUMN annals.generation.prepared IS 'What the projection''s own SQL added to the tables.';
COMMENT ON COLUMN annals.generation.keep_until IS 'When a retired generation is dropped.';

COMMENT ON TABLE annals.member IS 'The processes that run projections.';
COMMENT ON COLUMN annals.member.member IS 'The id of the process; new at each start.';
COMMENT ON COLUMN annals.member.name IS 'Its machine and process id.';
COMMENT ON COLUMN annals.member.rules IS 'The rules that it has.';
COMMENT ON COLUMN annals.member.builds_only IS 'Whether it helps with rebuilds only.';
COMMENT ON COLUMN annals.member.too_old IS 'What it must leave to a newer program.';
COMMENT ON COLUMN annals.member.started_at IS 'When it joined.';
COMMENT ON COLUMN annals.member.seen_at IS 'When it last said that it is alive.';

COMMENT ON TABLE annals.lease IS 'Which process takes up which partition for which generation.';
COMMENT ON COLUMN annals.lease.projection IS 'The projection.';
COMMENT ON COLUMN annals.lease.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.lease.partition IS 'The partition of the log.';
COMMENT ON COLUMN annals.lease.member IS 'The process.';
COMMENT ON COLUMN annals.lease.taken_at IS 'Since when.';
COMMENT ON COLUMN annals.lease.trouble IS 'Why it does not move; null if it does.';

COMMENT ON TABLE annals.ceiling IS 'How far a building may go.';
COMMENT ON TABLE annals.pause IS 'The projections that an operator paused.';
COMMENT ON COLUMN annals.pause.projection IS 'The projection.';
COMMENT ON COLUMN annals.pause.paused_at IS 'When.';
COMMENT ON COLUMN annals.pause.paused_by IS 'By whom.';
COMMENT ON COLUMN annals.pause.reason IS 'Why.';

COMMENT ON TABLE annals.declined IS 'Rules that operators cancelled or rolled back: their read models are not built by themselves.';
COMMENT ON COLUMN annals.declined.projection IS 'The projection.';
COMMENT ON COLUMN annals.declined.rule IS 'The rule: name, version and a digest of its declarations.';
COMMENT ON COLUMN annals.declined.declined_at IS 'When.';

COMMENT ON TABLE annals.control IS 'What operators did with read models, when and why.';
COMMENT ON COLUMN annals.control.id IS 'Its number.';
COMMENT ON COLUMN annals.control.at IS 'When.';
COMMENT ON COLUMN annals.control.projection IS 'The projection.';
COMMENT ON COLUMN annals.control.action IS 'What was asked for.';
COMMENT ON COLUMN annals.control.actor IS 'By whom.';
COMMENT ON COLUMN annals.control.reason IS 'Why.';
COMMENT ON COLUMN annals.control.detail IS 'What came of it.';

-- Streams that a generation has parked: it could not take up one of their commits, and everything
-- behind it in the stream waits, in its order.
CREATE TABLE annals.parked (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    stream     text COLLATE "C" NOT NULL,
    partition  integer NOT NULL,
    -- The commit that could not be taken up.
    position   bigint NOT NULL,
    "offset"   bigint NOT NULL,
    event_type text,
    reason     text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    attempts   integer NOT NULL DEFAULT 1,
    -- What an operator asked for, until it is done.
    wish       text COLLATE "C" CHECK (wish IN ('retry', 'discard')),
    wished_by  text,
    wished_why text,
    PRIMARY KEY (projection, generation, tenant, stream),
    FOREIGN KEY (projection, generation) REFERENCES annals.generation ON DELETE CASCADE
);

CREATE TABLE annals.parked_commit (
    projection  text COLLATE "C" NOT NULL,
    generation  integer NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    stream      text COLLATE "C" NOT NULL,
    position    bigint NOT NULL,
    "offset"    bigint NOT NULL,
    -- When it was recorded; the greatest time of the partition so far.
    at          timestamptz NOT NULL,
    record_hash bytea NOT NULL,
    PRIMARY KEY (projection, generation, tenant, stream, position),
    FOREIGN KEY (projection, generation, tenant, stream) REFERENCES annals.parked ON DELETE CASCADE
);

-- Commits that an operator discarded for a projection: each of its generations leaves them out.
CREATE TABLE annals.discarded (
    projection   text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    position     bigint NOT NULL,
    record_hash  bytea NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    stream       text COLLATE "C" NOT NULL,
    discarded_at timestamptz NOT NULL DEFAULT now(),
    discarded_by text NOT NULL,
    reason       text NOT NULL,
    PRIMARY KEY (projection, partition, position)
);

COMMENT ON TABLE annals.parked IS 'Streams that a generation could not take up, with everything behind it.';
COMMENT ON COLUMN annals.parked.projection IS 'The projection.';
COMMENT ON COLUMN annals.parked.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.parked.tenant IS 'The tenant of the stream.';
COMMENT ON COLUMN annals.parked.stream IS 'The stream.';
COMMENT ON COLUMN annals.parked.partition IS 'The partition of the log.';
COMMENT ON COLUMN annals.parked.position IS 'The position of the commit that could not be taken up.';
COMMENT ON COLUMN annals.parked."offset" IS 'The offset of that commit.';
COMMENT ON COLUMN annals.parked.event_type IS 'The type of its first event.';
COMMENT ON COLUMN annals.parked.reason IS 'Why it could not be taken up.';
COMMENT ON COLUMN annals.parked.parked_at IS 'Since when.';
COMMENT ON COLUMN annals.parked.attempts IS 'How often it was tried.';
COMMENT ON COLUMN annals.parked.wish IS 'What an operator asked for, until it is done.';
COMMENT ON COLUMN annals.parked.wished_by IS 'Who asked for it.';
COMMENT ON COLUMN annals.parked.wished_why IS 'Why.';

COMMENT ON TABLE annals.parked_commit IS 'The commits of parked streams, in their order.';
COMMENT ON COLUMN annals.parked_commit.projection IS 'The projection.';
COMMENT ON COLUMN annals.parked_commit.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.parked_commit.tenant IS 'The tenant of the stream.';
COMMENT ON COLUMN annals.parked_commit.stream IS 'The stream.';
COMMENT ON COLUMN annals.parked_commit.position IS 'The position of the commit.';
COMMENT ON COLUMN annals.parked_commit."offset" IS 'The offset of the commit.';
COMMENT ON COLUMN annals.parked_commit.at IS 'When it was recorded.';
COMMENT ON COLUMN annals.parked_commit.record_hash IS 'The hash of its record.';

COMMENT ON TABLE annals.discarded IS 'Commits that an operator discarded for a projection.';
COMMENT ON COLUMN annals.discarded.projection IS 'The projection.';
COMMENT ON COLUMN annals.discarded.partition IS 'The partition of the log.';
COMMENT ON COLUMN annals.discarded.position IS 'The position of the commit.';
COMMENT ON COLUMN annals.discarded.record_hash IS 'The hash of its record.';
COMMENT ON COLUMN annals.discarded.tenant IS 'The tenant of its stream.';
COMMENT ON COLUMN annals.discarded.stream IS 'Its stream.';
COMMENT ON COLUMN annals.discarded.discarded_at IS 'When.';
COMMENT ON COLUMN annals.discarded.discarded_by IS 'By whom.';
COMMENT ON COLUMN annals.discarded.reason IS 'Why.';

CREATE OR REPLACE VIEW annals.progress AS
SELECT g.projection,
    g.version,
    max(c.last_recorded_at) AS last_recorded_at,
    max(c.updated_at) AS updated_at,
    (SELECT min(s.reason) FROM annals.stop AS s
     WHERE s.projection = g.projection AND s.generation = g.generation) AS stopped,
    g.parked AS parked_streams
FROM annals.generation AS g
LEFT JOIN annals.checkpoint AS c ON c.projection = g.projection AND c.generation = g.generation
WHERE g.state = 'live'
GROUP BY g.projection, g.generation, g.version, g.parked;

COMMENT ON COLUMN annals.progress.parked_streams IS 'How many streams it has set aside, of all tenants: their rows are out of date.';
