-- What was placed with each seller; an order counts once, however many items it has of them.
SELECT
    tenant, seller_id, currency, orders, items,
    fold.held(items_minor) AS items_minor,
    fold.held(freight_minor) AS freight_minor,
    nullif(concat_ws(', ', fold.too_large('items_minor', items_minor),
        fold.too_large('freight_minor', freight_minor)), '') AS too_large
FROM (
    SELECT
        tenant,
        item ->> 'seller' AS seller_id,
        data ->> 'currency' AS currency,
        count(DISTINCT id) AS orders,
        count(*) AS items,
        sum((item #>> '{price,amount_minor}')::numeric) AS items_minor,
        sum((item #>> '{freight,amount_minor}')::numeric) AS freight_minor
    FROM export.events
    CROSS JOIN LATERAL jsonb_array_elements(data -> 'items') AS i (item)
    WHERE type = 'OrderPlaced'
    GROUP BY 1, 2, 3
) sums
