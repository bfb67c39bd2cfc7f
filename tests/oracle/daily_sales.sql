-- What was placed on each day of UTC.
SELECT
    (purchased_at AT TIME ZONE 'UTC')::date AS day,
    'BRL' AS currency,
    count(*)::bigint AS orders,
    sum(items)::bigint AS items,
    sum(items_minor)::bigint AS items_minor,
    sum(freight_minor)::bigint AS freight_minor
FROM judged.orders
WHERE is_placed
GROUP BY 1
