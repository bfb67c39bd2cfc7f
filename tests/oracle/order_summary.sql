-- One row per order that was placed. Steps that were refused leave no trace.
SELECT
    o.order_id,
    o.person AS customer_id,
    o.status_reached AS status,
    o.purchased_at AS placed_at,
    CASE WHEN o.is_approved THEN o.approved_at END AS approved_at,
    CASE WHEN o.is_shipped THEN o.shipped_at END AS shipped_at,
    CASE WHEN o.is_delivered THEN o.delivered_at END AS delivered_at,
    o.estimated_at AS estimated_delivery_at,
    CASE WHEN o.is_canceled THEN o.latest_at END AS canceled_at,
    o.items::bigint AS item_count,
    o.items_minor::bigint AS items_minor,
    o.freight_minor::bigint AS freight_minor,
    'BRL' AS currency,
    coalesce(p.captured_minor, 0)::bigint AS captured_minor,
    0::bigint AS refunded_minor,
    coalesce(p.payments, 0)::bigint AS payment_count,
    coalesce(r.reviews, 0)::bigint AS review_count,
    coalesce(r.score_sum, 0)::bigint AS review_score_sum,
    (1 + o.is_approved::int + o.is_processing::int + o.is_invoiced::int + o.is_shipped::int
        + o.is_delivered::int + o.is_canceled::int + o.is_unavailable::int
        + coalesce(r.reviews, 0))::bigint AS version
FROM judged.orders o
LEFT JOIN (
    SELECT order_id, count(*) AS payments, sum(amount_minor) AS captured_minor
    FROM judged.payments
    WHERE is_captured
    GROUP BY order_id
) p ON p.order_id = o.order_id
LEFT JOIN (
    SELECT order_id, count(*) AS reviews, sum(score) AS score_sum
    FROM judged.reviews
    WHERE is_given
    GROUP BY order_id
) r ON r.order_id = o.order_id
WHERE o.is_placed
