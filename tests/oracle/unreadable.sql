-- Every row that cannot be used, by file and line. An order whose customer is not there, or that
-- has more items than one command may hold, is listed at its own line.
SELECT 'olist_orders_dataset.csv' AS file, r.line
FROM raw.orders r
WHERE NOT EXISTS (SELECT FROM readable.orders o WHERE o.line = r.line)
UNION ALL
SELECT 'olist_orders_dataset.csv', o.line
FROM readable.orders o
JOIN judged.placing p ON p.order_id = o.order_id
WHERE p.person IS NULL
UNION ALL
SELECT 'olist_orders_dataset.csv', o.line
FROM readable.orders o
JOIN (
    SELECT order_id FROM readable.items
    GROUP BY order_id
    HAVING count(*) > 200 AND bool_and(is_readable)
) many ON many.order_id = o.order_id
UNION ALL
SELECT 'olist_order_items_dataset.csv', r.line
FROM raw.order_items r
WHERE NOT EXISTS (SELECT FROM readable.items i WHERE i.line = r.line AND i.is_readable)
UNION ALL
SELECT 'olist_order_payments_dataset.csv', r.line
FROM raw.order_payments r
WHERE NOT EXISTS (SELECT FROM readable.payments p WHERE p.line = r.line)
UNION ALL
SELECT 'olist_order_reviews_dataset.csv', r.line
FROM raw.order_reviews r
WHERE NOT EXISTS (SELECT FROM readable.reviews v WHERE v.line = r.line)
UNION ALL
SELECT 'olist_customers_dataset.csv', r.line
FROM raw.customers r
WHERE NOT EXISTS (SELECT FROM readable.customers c WHERE c.line = r.line AND c.has_address)
