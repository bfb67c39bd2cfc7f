-- What was placed with each seller; an order counts once, however many items it has of them.
SELECT
    i.seller_id,
    'BRL' AS currency,
    count(DISTINCT i.order_id)::bigint AS orders,
    count(*)::bigint AS items,
    sum(i.price_minor)::bigint AS items_minor,
    sum(i.freight_minor)::bigint AS freight_minor
FROM readable.items i
JOIN judged.orders o ON o.order_id = i.order_id AND o.is_placed
GROUP BY i.seller_id
