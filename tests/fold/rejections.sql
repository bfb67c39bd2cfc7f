-- Every command that was refused.
SELECT
    tenant, stream, position, command_id, command, code, detail, asked_at AS occurred_at,
    recorded_at, partition
FROM export.commits
WHERE code IS NOT NULL
