-- Every commit, refusals included. Only the log itself shows the hash of its record.
SELECT
    tenant, partition, position, "offset",
    max(recorded_at) OVER (PARTITION BY partition ORDER BY position) AS recorded_at,
    stream, category, from_version, from_version + events AS version,
    CASE WHEN code IS NULL THEN 'accepted' ELSE 'refused' END AS outcome, code,
    command_id, command, actor_kind, actor_id, correlation_id, causation_id,
    coalesce(types, '{}') AS event_types
FROM export.commits c
LEFT JOIN (
    SELECT partition, position, array_agg(type ORDER BY version) AS types
    FROM export.events
    GROUP BY partition, position
) e USING (partition, position)
