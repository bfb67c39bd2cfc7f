-- Every type of event that a commit holds.
SELECT tenant, type AS event_type, partition, position, category, count(*) AS events
FROM export.events
GROUP BY tenant, type, partition, position, category
