-- What analysts find when they look at the database: descriptions, and how current the read models
-- are. `annals_reader`, the role they read with, is made by the program: whoever migrates may not
-- be allowed to make roles.

-- The descriptions that a generation gave its views: a description that somebody changed is theirs,
-- and is kept.
ALTER TABLE annals.generation ADD COLUMN comments jsonb;

CREATE VIEW annals.progress AS
SELECT g.projection,
    g.version,
    max(c.last_recorded_at) AS last_recorded_at,
    max(c.updated_at) AS updated_at,
    (SELECT min(s.reason) FROM annals.stop AS s
     WHERE s.projection = g.projection AND s.generation = g.generation) AS stopped
FROM annals.generation AS g
LEFT JOIN annals.checkpoint AS c ON c.projection = g.projection AND c.generation = g.generation
WHERE g.state = 'live'
GROUP BY g.projection, g.generation, g.version;

COMMENT ON VIEW annals.progress IS 'How current the read models are: one row for each projection.';
COMMENT ON COLUMN annals.progress.projection IS 'The projection that writes the read model.';
COMMENT ON COLUMN annals.progress.version IS 'The version of its rules.';
COMMENT ON COLUMN annals.progress.last_recorded_at IS 'When the newest commit that it has taken up was recorded; null if it has taken up none.';
COMMENT ON COLUMN annals.progress.updated_at IS 'When its rows last changed.';
COMMENT ON COLUMN annals.progress.stopped IS 'Why it goes no further; null if it runs.';

COMMENT ON TABLE annals.generation IS 'The generations of each projection''s tables: the live one, and one that is being built.';
COMMENT ON COLUMN annals.generation.projection IS 'The projection.';
COMMENT ON COLUMN annals.generation.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.generation.version IS 'The version of the rules that fill it.';
COMMENT ON COLUMN annals.generation.state IS 'live: the views in the schema read show it; building: a rebuild fills it.';
COMMENT ON COLUMN annals.generation.declaration IS 'Its tables and views as declared.';
COMMENT ON COLUMN annals.generation.tables IS 'Its tables, in the schema projection.';
COMMENT ON COLUMN annals.generation.views IS 'Its views, in the schema read.';
COMMENT ON COLUMN annals.generation.created_at IS 'When it was created.';
COMMENT ON COLUMN annals.generation.comments IS 'The descriptions that it gave its views.';

COMMENT ON TABLE annals.checkpoint IS 'How far each generation has read each partition of the log.';
COMMENT ON COLUMN annals.checkpoint.projection IS 'The projection.';
COMMENT ON COLUMN annals.checkpoint.version IS 'The version of its rules.';
COMMENT ON COLUMN annals.checkpoint.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.checkpoint.partition IS 'The partition of the log.';
COMMENT ON COLUMN annals.checkpoint.log IS 'The identity of the log.';
COMMENT ON COLUMN annals.checkpoint.record_version IS 'The format of the last record.';
COMMENT ON COLUMN annals.checkpoint."offset" IS 'The offset of the last record that was read.';
COMMENT ON COLUMN annals.checkpoint.record_hash IS 'The hash of that record.';
COMMENT ON COLUMN annals.checkpoint.leader_epoch IS 'The broker''s leader epoch of that record.';
COMMENT ON COLUMN annals.checkpoint.term IS 'The number of the claim in force there.';
COMMENT ON COLUMN annals.checkpoint.writer IS 'The writer of that claim.';
COMMENT ON COLUMN annals.checkpoint.head IS 'The hash of the last record that counts.';
COMMENT ON COLUMN annals.checkpoint.position IS 'How many records count, up to there.';
COMMENT ON COLUMN annals.checkpoint.last_recorded_at IS 'When the last commit that counts was recorded.';
COMMENT ON COLUMN annals.checkpoint.updated_at IS 'When the checkpoint was last moved.';

COMMENT ON TABLE annals.stop IS 'Where a projection goes no further, and why.';
COMMENT ON COLUMN annals.stop.projection IS 'The projection.';
COMMENT ON COLUMN annals.stop.generation IS 'The number of the generation.';
COMMENT ON COLUMN annals.stop.partition IS 'The partition of the log.';
COMMENT ON COLUMN annals.stop."offset" IS 'The offset of the commit that it could not take up, if there is one.';
COMMENT ON COLUMN annals.stop.reason IS 'Why it stopped.';
COMMENT ON COLUMN annals.stop.stopped_at IS 'When it stopped.';

COMMENT ON TABLE annals.log IS 'The log that this database belongs to: at most one row.';
COMMENT ON COLUMN annals.log.one IS 'Always true: there is one row.';
COMMENT ON COLUMN annals.log.log IS 'The identity of the log.';
COMMENT ON COLUMN annals.log.address IS 'The address of the log when it was noted.';

-- An administrator may have made the schemas, which then only they may describe.
DO $$
BEGIN
    COMMENT ON SCHEMA read IS 'The read models of Annals: one view each, to be queried. Every row belongs to a tenant.';
    COMMENT ON SCHEMA projection IS 'The tables behind the views in the schema read. A rebuild replaces them: query the views.';
    COMMENT ON SCHEMA annals IS 'What Annals keeps of its own. The view progress tells how current the read models are.';
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the schemas belong to another role, and are not described';
END
$$;
