-- Every row that cannot be used, by file and line. An order that cannot be placed as its rows say is
-- listed at its own line, and so are its payments and reviews.
SELECT 'olist_orders_dataset.csv' AS file, r.line
FROM raw.orders r
WHERE NOT EXISTS (SELECT FROM readable.orders o WHERE o.line = r.line)
UNION ALL
SELECT 'olist_orders_dataset.csv', o.line
FROM readable.orders o
JOIN judged.placing p ON p.order_id = o.order_id
WHERE NOT p.is_sent
UNION ALL
SELECT 'olist_order_items_dataset.csv', r.line
FROM raw.order_items r
WHERE NOT EXISTS (SELECT FROM readable.items i WHERE i.line = r.line AND i.is_readable)
UNION ALL
SELECT 'olist_order_payments_dataset.csv', r.line
FROM raw.order_payments r
WHERE NOT EXISTS (
    SELECT FROM readable.payments p
    JOIN judged.placing o ON o.order_id = p.order_id AND o.is_sent
    WHERE p.line = r.line)
UNION ALL
SELECT 'olist_order_reviews_dataset.csv', r.line
FROM raw.order_reviews r
WHERE NOT EXISTS (
    SELECT FROM readable.reviews v
    JOIN judged.placing o ON o.order_id = v.order_id AND o.is_sent
    WHERE v.line = r.line)
UNION ALL
SELECT 'olist_customers_dataset.csv', r.line
FROM raw.customers r
WHERE NOT EXISTS (SELECT FROM readable.customers c WHERE c.line = r.line AND c.has_address)
