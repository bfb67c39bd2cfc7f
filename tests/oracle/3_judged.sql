-- What business says of each command, by its rules.
--
-- An order's commands come in this order: PlaceOrder, ApproveOrder, StartProcessing or
-- InvoiceOrder, ShipOrder, DeliverOrder, CancelOrder or MarkUnavailable, reviews. Since that order
-- is fixed, each verdict follows from which steps there are.

CREATE SCHEMA judged;

-- What the items say about placing. An order is not even asked for where its person, or one of its
-- items, cannot be read, or where it has more items than one command may hold; nor are its steps,
-- payments and reviews.
CREATE TABLE judged.placing AS
SELECT
    o.order_id,
    c.person,
    c.person IS NOT NULL AND coalesce(i.all_readable, true) AND coalesce(i.items, 0) <= 200
        AS is_sent,
    coalesce(i.items, 0) AS items,
    i.items_minor,
    i.freight_minor,
    CASE
        WHEN coalesce(i.items, 0) = 0 THEN 'order_has_no_items'
        WHEN i.line_numbers < i.items THEN 'order_lines_repeat'
        WHEN i.price_minor_min <= 0 THEN 'order_price_not_positive'
        WHEN i.freight_minor_min < 0 THEN 'order_freight_negative'
        WHEN i.items_minor + i.freight_minor > 9007199254740992 THEN 'order_total_too_large'
    END AS code
FROM readable.orders o
LEFT JOIN readable.customers c ON c.customer_id = o.customer_id
LEFT JOIN (
    SELECT
        order_id,
        count(*) AS items,
        bool_and(is_readable) AS all_readable,
        count(DISTINCT line_number) AS line_numbers,
        min(price_minor) AS price_minor_min,
        min(freight_minor) AS freight_minor_min,
        sum(price_minor) AS items_minor,
        sum(freight_minor) AS freight_minor
    FROM readable.items
    GROUP BY order_id
) i ON i.order_id = o.order_id;

-- The steps that happened, per order: approval and all before it need no more than placing, the
-- carrier needs approval, delivery needs the carrier.
CREATE TABLE judged.orders AS
SELECT
    *,
    CASE
        WHEN is_canceled THEN 'canceled'
        WHEN is_unavailable THEN 'unavailable'
        WHEN is_delivered THEN 'delivered'
        WHEN is_shipped THEN 'shipped'
        WHEN is_invoiced THEN 'invoiced'
        WHEN is_processing THEN 'processing'
        WHEN is_approved THEN 'approved'
        ELSE 'placed'
    END AS status_reached
FROM (
    SELECT
        *,
        is_approved AND status = 'processing' AS is_processing,
        is_approved AND status = 'invoiced' AS is_invoiced,
        is_placed AND status = 'canceled' AND NOT is_delivered AS is_canceled,
        is_placed AND status = 'unavailable' AND NOT is_shipped AS is_unavailable
    FROM (
        SELECT
            o.*,
            p.person,
            p.is_sent,
            p.code AS placing_code,
            p.items,
            p.items_minor,
            p.freight_minor,
            coalesce(o.approved_at, o.purchased_at) AS settled_at,
            greatest(o.purchased_at, o.approved_at, o.shipped_at, o.delivered_at) AS latest_at,
            p.is_sent AND p.code IS NULL AS is_placed,
            p.is_sent AND p.code IS NULL AND o.approved_at IS NOT NULL AS is_approved,
            p.is_sent AND p.code IS NULL AND o.approved_at IS NOT NULL
                AND o.shipped_at IS NOT NULL AS is_shipped,
            p.is_sent AND p.code IS NULL AND o.approved_at IS NOT NULL
                AND o.shipped_at IS NOT NULL AND o.delivered_at IS NOT NULL AS is_delivered
        FROM readable.orders o
        JOIN judged.placing p ON p.order_id = o.order_id
    ) steps
) ends;

ALTER TABLE judged.orders ADD PRIMARY KEY (order_id);

-- A payment number is captured by its first row that is not negative; the same again adds nothing.
CREATE TABLE judged.payments AS
SELECT
    p.*,
    p.place = taken.place AS is_captured,
    CASE
        WHEN p.place = taken.place THEN null
        WHEN p.place > taken.place THEN
            CASE WHEN (p.method, p.instalments, p.amount_minor)
                    <> (taken.method, taken.instalments, taken.amount_minor)
                THEN 'payment_already_captured' END
        WHEN p.amount_minor < 0 THEN 'payment_amount_negative'
        ELSE 'payment_instalments_negative'
    END AS code
FROM readable.payments p
JOIN judged.placing o ON o.order_id = p.order_id AND o.is_sent
LEFT JOIN (
    SELECT DISTINCT ON (order_id, sequence)
        order_id, sequence, place, method, instalments, amount_minor
    FROM readable.payments
    WHERE amount_minor >= 0 AND instalments >= 0
    ORDER BY order_id, sequence, place
) taken ON taken.order_id = p.order_id AND taken.sequence = p.sequence;

UPDATE judged.payments SET is_captured = false WHERE is_captured IS NULL;

-- A review id is taken by its first review in time; the same again adds nothing.
CREATE TABLE judged.reviews AS
SELECT
    r.*,
    o.is_placed AND nth = 1 AS is_given,
    CASE
        WHEN NOT o.is_placed THEN 'order_not_placed'
        WHEN (score, title, comment, created_at)
            IS DISTINCT FROM (first_score, first_title, first_comment, first_created_at)
            THEN 'review_already_given'
    END AS code
FROM (
    SELECT
        *,
        row_number() OVER by_time AS nth,
        first_value(score) OVER by_time AS first_score,
        first_value(title) OVER by_time AS first_title,
        first_value(comment) OVER by_time AS first_comment,
        first_value(created_at) OVER by_time AS first_created_at
    FROM readable.reviews
    WINDOW by_time AS (PARTITION BY order_id, review_id ORDER BY created_at, place)
) r
JOIN judged.orders o ON o.order_id = r.order_id AND o.is_sent;

-- What orders tell of a person's address, as often as it is another than before. Each time is a fact;
-- since they are told in order of time, none is superseded.
CREATE TABLE judged.addresses AS
SELECT *
FROM (
    SELECT
        c.person, o.purchased_at, c.postcode_prefix, c.city, c.state,
        row_number() OVER by_time AS nth,
        (c.postcode_prefix, c.city, c.state) IS DISTINCT FROM (
            lag(c.postcode_prefix) OVER by_time,
            lag(c.city) OVER by_time,
            lag(c.state) OVER by_time) AS is_change
    FROM readable.orders o
    JOIN readable.customers c ON c.customer_id = o.customer_id AND c.has_address
    WINDOW by_time AS (
        PARTITION BY c.person ORDER BY o.purchased_at, o.order_id COLLATE "C")
) told
WHERE is_change OR nth = 1;

-- Every command that is sent, with the code of its refusal and the number of its events.
CREATE TABLE judged.commands AS
SELECT
    'customer-' || person AS stream,
    CASE WHEN nth = 1 THEN 'RegisterCustomer' ELSE 'CorrectAddress' END AS command,
    purchased_at AS occurred_at,
    null::text AS code,
    1 AS events
FROM judged.addresses
UNION ALL
SELECT 'order-' || order_id, 'PlaceOrder', purchased_at, placing_code, is_placed::int
FROM judged.orders
WHERE is_sent
UNION ALL
SELECT
    'payment-' || order_id || '-' || sequence, 'CapturePayment', occurred_at, code,
    is_captured::int
FROM judged.payments
UNION ALL
SELECT
    'order-' || o.order_id, step.command, step.occurred_at,
    CASE
        WHEN step.happened THEN null
        WHEN NOT o.is_placed THEN 'order_not_placed'
        ELSE step.code
    END,
    step.happened::int
FROM judged.orders o
CROSS JOIN LATERAL (VALUES
    ('ApproveOrder', o.approved_at IS NOT NULL, o.approved_at, o.is_approved, null),
    ('StartProcessing', o.status = 'processing', o.settled_at, o.is_processing,
        'order_not_approved'),
    ('InvoiceOrder', o.status = 'invoiced', o.settled_at, o.is_invoiced, 'order_not_approved'),
    ('ShipOrder', o.shipped_at IS NOT NULL, o.shipped_at, o.is_shipped, 'order_not_approved'),
    ('DeliverOrder', o.delivered_at IS NOT NULL, o.delivered_at, o.is_delivered,
        'order_not_shipped'),
    ('CancelOrder', o.status = 'canceled', o.latest_at, o.is_canceled,
        'order_already_delivered'),
    ('MarkUnavailable', o.status = 'unavailable', o.latest_at, o.is_unavailable,
        CASE WHEN o.is_delivered THEN 'order_already_delivered' ELSE 'order_already_shipped' END)
) AS step (command, is_sent, occurred_at, happened, code)
WHERE step.is_sent AND o.is_sent
UNION ALL
SELECT 'order-' || order_id, 'ReviewOrder', created_at, code, is_given::int
FROM judged.reviews;

CREATE SCHEMA expected;
