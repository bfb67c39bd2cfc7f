-- Every stream that a command was sent to, with its events; 0 where all were refused.
SELECT
    stream,
    split_part(stream, '-', 1) AS category,
    sum(events)::bigint AS version,
    sum(events)::bigint AS events
FROM judged.commands
GROUP BY stream
