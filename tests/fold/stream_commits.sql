-- The places of all commits that hold events. Only the log itself shows their hashes.
SELECT tenant, stream, from_version + events AS version, from_version, partition, position, "offset"
FROM export.commits
WHERE events > 0
