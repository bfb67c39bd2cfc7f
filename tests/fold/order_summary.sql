-- One row per order that was placed, with the payments in its currency.
SELECT
    o.tenant,
    o.id AS order_id,
    o.customer_id,
    o.status,
    o.placed_at,
    o.approved_at,
    o.shipped_at,
    o.delivered_at,
    o.estimated_delivery_at,
    o.canceled_at,
    o.item_count,
    o.items_minor,
    o.freight_minor,
    o.currency,
    o.review_count,
    o.review_score_sum,
    o.version,
    fold.held(coalesce(p.captured_minor, 0)) AS captured_minor,
    fold.held(coalesce(p.refunded_minor, 0)) AS refunded_minor,
    coalesce(p.payment_count, 0) AS payment_count,
    nullif(concat_ws(', ', fold.too_large('captured_minor', p.captured_minor),
        fold.too_large('refunded_minor', p.refunded_minor)), '') AS too_large
FROM (
    SELECT
        tenant,
        id,
        max(data ->> 'customer') AS customer_id,
        (array_agg(
            CASE type
                WHEN 'OrderPlaced' THEN 'placed'
                WHEN 'OrderApproved' THEN 'approved'
                WHEN 'ProcessingStarted' THEN 'processing'
                WHEN 'OrderInvoiced' THEN 'invoiced'
                WHEN 'OrderShipped' THEN 'shipped'
                WHEN 'OrderDelivered' THEN 'delivered'
                WHEN 'OrderCanceled' THEN 'canceled'
                WHEN 'OrderMarkedUnavailable' THEN 'unavailable'
            END ORDER BY version DESC) FILTER (WHERE type <> 'OrderReviewed'))[1] AS status,
        max(occurred_at) FILTER (WHERE type = 'OrderPlaced') AS placed_at,
        max(occurred_at) FILTER (WHERE type = 'OrderApproved') AS approved_at,
        max(occurred_at) FILTER (WHERE type = 'OrderShipped') AS shipped_at,
        max(occurred_at) FILTER (WHERE type = 'OrderDelivered') AS delivered_at,
        max((data ->> 'estimated_delivery')::timestamptz) FILTER (WHERE type = 'OrderPlaced')
            AS estimated_delivery_at,
        max(occurred_at) FILTER (WHERE type = 'OrderCanceled') AS canceled_at,
        max(jsonb_array_length(data -> 'items')) FILTER (WHERE type = 'OrderPlaced')::bigint
            AS item_count,
        max((data ->> 'items_minor')::bigint) AS items_minor,
        max((data ->> 'freight_minor')::bigint) AS freight_minor,
        max(data ->> 'currency') AS currency,
        count(*) FILTER (WHERE type = 'OrderReviewed') AS review_count,
        coalesce(sum((data ->> 'score')::bigint), 0)::bigint AS review_score_sum,
        max(version) AS version
    FROM export.events
    WHERE category = 'order'
    GROUP BY tenant, id
) o
LEFT JOIN (
    SELECT
        tenant,
        data ->> 'order' AS order_id,
        data #>> '{amount,currency}' AS currency,
        sum((data #>> '{amount,amount_minor}')::numeric) FILTER (WHERE type = 'PaymentCaptured')
            AS captured_minor,
        sum((data #>> '{amount,amount_minor}')::numeric) FILTER (WHERE type = 'PaymentRefunded')
            AS refunded_minor,
        count(*) FILTER (WHERE type = 'PaymentCaptured') AS payment_count
    FROM export.events
    WHERE category = 'payment'
    GROUP BY 1, 2, 3
) p ON p.tenant = o.tenant AND p.order_id = o.id AND p.currency = o.currency
WHERE o.placed_at IS NOT NULL
