-- The commits and events of the export, with the values that a commit leaves out where they follow
-- from others (docs/reading-the-topic.md).

CREATE UNLOGGED TABLE export.every_commit AS
SELECT
    (line ->> 'partition')::bigint AS partition,
    (line ->> 'offset')::bigint AS "offset",
    (line ->> 'position')::bigint AS position,
    coalesce(commit ->> 'tenant', 'main') AS tenant,
    commit ->> 'stream' AS stream,
    split_part(commit ->> 'stream', '-', 1) AS category,
    substr(commit ->> 'stream', strpos(commit ->> 'stream', '-') + 1) AS id,
    (commit ->> 'from_version')::bigint AS from_version,
    coalesce(jsonb_array_length(commit -> 'events'), 0)::bigint AS events,
    (commit ->> 'recorded_at')::timestamptz AS recorded_at,
    -- Clocks differ: a commit belongs to the moment of the latest one up to it in its partition.
    max((commit ->> 'recorded_at')::timestamptz) OVER (
        PARTITION BY (line ->> 'partition')::bigint ORDER BY (line ->> 'position')::bigint
    ) AS moment,
    coalesce(commit #>> '{command,occurred_at}', commit ->> 'recorded_at')::timestamptz AS asked_at,
    commit #>> '{command,id}' AS command_id,
    commit #>> '{command,type}' AS command,
    commit #>> '{actor,kind}' AS actor_kind,
    commit #>> '{actor,id}' AS actor_id,
    coalesce(commit ->> 'correlation_id', commit #>> '{command,id}') AS correlation_id,
    coalesce(commit ->> 'causation_id', commit #>> '{command,id}') AS causation_id,
    commit #>> '{rejection,code}' AS code,
    commit #>> '{rejection,detail}' AS detail,
    commit -> 'events' AS said
FROM (
    SELECT line, line -> 'commit' AS commit
    FROM (SELECT line::jsonb AS line FROM export.lines OFFSET 0) parsed
    OFFSET 0
) lines;

CREATE UNLOGGED TABLE export.every_event AS
SELECT
    moment, tenant, stream, category, id, partition, position,
    from_version + nth AS version,
    event ->> 'type' AS type,
    coalesce((event ->> 'occurred_at')::timestamptz, asked_at) AS occurred_at,
    event -> 'data' AS data
FROM export.every_commit
CROSS JOIN LATERAL jsonb_array_elements(said) WITH ORDINALITY AS e (event, nth);

ALTER TABLE export.every_commit DROP COLUMN said;
DROP TABLE export.lines;
ANALYZE export.every_commit;
ANALYZE export.every_event;

-- A sum, if a bigint holds it.
CREATE FUNCTION fold.held(total numeric) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN total BETWEEN -9223372036854775808 AND 9223372036854775807
        THEN total::bigint END
$$;

-- The name of a sum, if no bigint holds it.
CREATE FUNCTION fold.too_large(name text, total numeric) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN total NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN name END
$$;
