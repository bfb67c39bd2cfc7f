-- What was captured and given back by each method.
SELECT
    tenant, method, currency, payments,
    fold.held(captured_minor) AS captured_minor,
    fold.held(refunded_minor) AS refunded_minor,
    instalments_max,
    nullif(concat_ws(', ', fold.too_large('captured_minor', captured_minor),
        fold.too_large('refunded_minor', refunded_minor)), '') AS too_large
FROM (
    SELECT
        tenant,
        data ->> 'method' AS method,
        data #>> '{amount,currency}' AS currency,
        count(*) FILTER (WHERE type = 'PaymentCaptured') AS payments,
        coalesce(sum((data #>> '{amount,amount_minor}')::numeric)
            FILTER (WHERE type = 'PaymentCaptured'), 0) AS captured_minor,
        coalesce(sum((data #>> '{amount,amount_minor}')::numeric)
            FILTER (WHERE type = 'PaymentRefunded'), 0) AS refunded_minor,
        coalesce(max((data ->> 'instalments')::bigint), 0) AS instalments_max
    FROM export.events
    WHERE category = 'payment'
    GROUP BY 1, 2, 3
) sums
