-- How many commands of each type are sent.
SELECT command, count(*)::bigint AS lines
FROM judged.commands
GROUP BY command
