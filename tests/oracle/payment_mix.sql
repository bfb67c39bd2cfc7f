-- What was captured by each method, also for orders that were never placed.
SELECT
    method,
    'BRL' AS currency,
    count(*)::bigint AS payments,
    sum(amount_minor)::bigint AS captured_minor,
    0::bigint AS refunded_minor,
    max(instalments)::bigint AS instalments_max
FROM judged.payments
WHERE is_captured
GROUP BY method
