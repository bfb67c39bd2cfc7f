-- What was delivered in each month of UTC, after how many whole days, and how much of it late.
SELECT
    date_trunc('month', delivered_at AT TIME ZONE 'UTC')::date AS month,
    count(*)::bigint AS delivered,
    sum(floor(extract(epoch FROM delivered_at - purchased_at) / 86400))::bigint AS days_sum,
    count(*) FILTER (WHERE delivered_at > estimated_at)::bigint AS late
FROM judged.orders
WHERE is_delivered
GROUP BY 1
