-- What was delivered in each month of UTC, after how many whole days, and how much of it late.
SELECT
    tenant,
    date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date AS month,
    count(*) AS delivered,
    sum(floor(extract(epoch FROM occurred_at - (data ->> 'placed_at')::timestamptz) / 86400))::bigint
        AS days_sum,
    count(*) FILTER (WHERE occurred_at > (data ->> 'estimated_delivery')::timestamptz) AS late
FROM export.events
WHERE type = 'OrderDelivered'
GROUP BY 1, 2
