-- What was placed on each day of UTC.
SELECT
    tenant, day, currency, orders, items,
    fold.held(items_minor) AS items_minor,
    fold.held(freight_minor) AS freight_minor,
    nullif(concat_ws(', ', fold.too_large('items_minor', items_minor),
        fold.too_large('freight_minor', freight_minor)), '') AS too_large
FROM (
    SELECT
        tenant,
        (occurred_at AT TIME ZONE 'UTC')::date AS day,
        data ->> 'currency' AS currency,
        count(*) AS orders,
        sum(jsonb_array_length(data -> 'items'))::bigint AS items,
        sum((data ->> 'items_minor')::numeric) AS items_minor,
        sum((data ->> 'freight_minor')::numeric) AS freight_minor
    FROM export.events
    WHERE type = 'OrderPlaced'
    GROUP BY 1, 2, 3
) sums
