-- Every stream that has a commit; one without events if all its commands were refused.
SELECT
    tenant,
    stream,
    category,
    max(from_version + events) AS version,
    sum(events)::bigint AS events,
    min(recorded_at) AS first_recorded_at,
    max(recorded_at) AS last_recorded_at,
    min(partition) AS partition,
    min(position) AS first_position,
    max(position) AS last_position
FROM export.commits
GROUP BY tenant, stream, category
