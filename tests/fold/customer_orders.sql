-- One row per registered customer, with the address told last and all orders placed.
SELECT
    c.tenant,
    c.id AS customer_id,
    a.data ->> 'city' AS city,
    a.data ->> 'state' AS state,
    c.occurred_at AS registered_at,
    coalesce(o.orders, 0) AS orders,
    fold.held(coalesce(o.spent_minor, 0)) AS spent_minor,
    o.first_order_at,
    o.last_order_at,
    fold.too_large('spent_minor', o.spent_minor) AS too_large
FROM export.events c
JOIN (
    SELECT DISTINCT ON (tenant, id) tenant, id, data
    FROM export.events
    WHERE type IN ('CustomerRegistered', 'AddressCorrected')
    ORDER BY tenant, id, version DESC
) a ON a.tenant = c.tenant AND a.id = c.id
LEFT JOIN (
    SELECT
        tenant,
        data ->> 'customer' AS customer_id,
        count(*) AS orders,
        sum((data ->> 'items_minor')::numeric + (data ->> 'freight_minor')::numeric)
            AS spent_minor,
        min(occurred_at) AS first_order_at,
        max(occurred_at) AS last_order_at
    FROM export.events
    WHERE type = 'OrderPlaced'
    GROUP BY 1, 2
) o ON o.tenant = c.tenant AND o.customer_id = c.id
WHERE c.type = 'CustomerRegistered'
