-- Every command that was refused. Ids, details and the time of recording are the engine's.
SELECT stream, command, code, occurred_at
FROM judged.commands
WHERE code IS NOT NULL
