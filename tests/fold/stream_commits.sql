-- The places of all commits that hold events. Only the log itself shows their hashes.
SELECT
    tenant, stream, from_version + events AS version, from_version, partition, position, "offset",
    latest AS recorded_at
FROM (
    SELECT *, max(recorded_at) OVER (PARTITION BY partition ORDER BY position) AS latest
    FROM export.commits
) c
WHERE events > 0
