-- Which rows can be read, and what they say. A cell that cannot be read is null here.

CREATE SCHEMA readable;

CREATE FUNCTION readable.is_id(cell text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$
    SELECT coalesce(cell ~ '^[A-Za-z0-9._~-]{1,128}$', false)
$$;

-- "2018-06-04 16:44:48", taken as UTC; null for what is no such moment.
CREATE FUNCTION readable.moment(cell text) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE
        WHEN cell !~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]) ([01]\d|2[0-3]):[0-5]\d:[0-5]\d$'
            THEN null
        WHEN substr(cell, 1, 4) = '0000' THEN null
        WHEN substr(cell, 9, 2)::int > extract(day FROM
                make_date(substr(cell, 1, 4)::int, substr(cell, 6, 2)::int, 1)
                + interval '1 month' - interval '1 day')
            THEN null
        ELSE cell::timestamp AT TIME ZONE 'UTC'
    END
$$;

-- "21.99" as 2199; null for what is no amount with at most two decimals within 2^53.
CREATE FUNCTION readable.minor(cell text) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE
        WHEN cell ~ '^-?\d+(\.\d{1,2})?$' AND abs(cell::numeric * 100) <= 9007199254740992
            THEN (cell::numeric * 100)::bigint
    END
$$;

-- A whole number between the two, both included; null for what is none.
CREATE FUNCTION readable.whole(cell text, least_ bigint, greatest_ bigint) RETURNS bigint
IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE
        WHEN cell ~ '^-?\d+$' AND cell::numeric BETWEEN least_ AND greatest_ THEN cell::bigint
    END
$$;

-- Of orders with one id, the first that can be read counts.
CREATE TABLE readable.orders AS
SELECT DISTINCT ON (order_id)
    order_id,
    customer_id,
    order_status AS status,
    readable.moment(order_purchase_timestamp) AS purchased_at,
    readable.moment(order_approved_at) AS approved_at,
    readable.moment(order_delivered_carrier_date) AS shipped_at,
    readable.moment(order_delivered_customer_date) AS delivered_at,
    readable.moment(order_estimated_delivery_date) AS estimated_at,
    line
FROM raw.orders
WHERE is_whole
    AND readable.is_id(order_id)
    AND customer_id <> ''
    AND order_status IN ('created', 'approved', 'processing', 'invoiced', 'shipped', 'delivered',
        'canceled', 'unavailable')
    AND readable.moment(order_purchase_timestamp) IS NOT NULL
    AND (order_approved_at = '' OR readable.moment(order_approved_at) IS NOT NULL)
    AND (order_delivered_carrier_date = ''
        OR readable.moment(order_delivered_carrier_date) IS NOT NULL)
    AND (order_delivered_customer_date = ''
        OR readable.moment(order_delivered_customer_date) IS NOT NULL)
    AND readable.moment(order_estimated_delivery_date) IS NOT NULL
ORDER BY order_id, place;

ALTER TABLE readable.orders ADD PRIMARY KEY (order_id);

-- Every item row of an order that can be read; is_readable tells whether it can be read itself.
CREATE TABLE readable.items AS
SELECT
    i.order_id,
    readable.whole(i.order_item_id, 1, 2147483647) AS line_number,
    i.seller_id,
    readable.minor(i.price) AS price_minor,
    readable.minor(i.freight_value) AS freight_minor,
    coalesce(
        i.is_whole
        AND readable.whole(i.order_item_id, 1, 2147483647) IS NOT NULL
        AND readable.is_id(i.product_id)
        AND readable.is_id(i.seller_id)
        AND readable.minor(i.price) >= 0
        AND readable.minor(i.freight_value) IS NOT NULL, false) AS is_readable,
    i.line
FROM raw.order_items i
JOIN readable.orders o ON o.order_id = i.order_id;

CREATE INDEX ON readable.items (order_id);

CREATE TABLE readable.payments AS
SELECT
    p.order_id,
    readable.whole(p.payment_sequential, 1, 1000000) AS sequence,
    p.payment_type AS method,
    readable.whole(p.payment_installments, -9007199254740992, 9007199254740992) AS instalments,
    readable.minor(p.payment_value) AS amount_minor,
    coalesce(o.approved_at, o.purchased_at) AS occurred_at,
    p.place,
    p.line
FROM raw.order_payments p
JOIN readable.orders o ON o.order_id = p.order_id
WHERE p.is_whole
    AND readable.whole(p.payment_sequential, 1, 1000000) IS NOT NULL
    AND length(p.order_id) + 1 + length(p.payment_sequential::bigint::text) <= 128
    AND p.payment_type IN ('credit_card', 'boleto', 'voucher', 'debit_card')
    AND readable.whole(p.payment_installments, -9007199254740992, 9007199254740992) IS NOT NULL
    AND readable.minor(p.payment_value) IS NOT NULL;

CREATE INDEX ON readable.payments (order_id);

CREATE TABLE readable.reviews AS
SELECT
    r.order_id,
    r.review_id,
    r.review_score::bigint AS score,
    r.review_comment_title AS title,
    r.review_comment_message AS comment,
    readable.moment(r.review_creation_date) AS created_at,
    r.place,
    r.line
FROM raw.order_reviews r
JOIN readable.orders o ON o.order_id = r.order_id
WHERE r.is_whole
    AND readable.is_id(r.review_id)
    AND r.review_score ~ '^0*[1-5]$'
    AND char_length(r.review_comment_title) <= 500
    AND char_length(r.review_comment_message) <= 10000
    AND readable.moment(r.review_creation_date) IS NOT NULL;

CREATE INDEX ON readable.reviews (order_id);

-- Of customers with one id, the first row counts. Its person is null where not even that can be
-- read; has_address tells whether all of it can be.
CREATE TABLE readable.customers AS
SELECT DISTINCT ON (customer_id)
    customer_id,
    CASE WHEN readable.is_id(customer_unique_id) THEN customer_unique_id END AS person,
    customer_zip_code_prefix AS postcode_prefix,
    customer_city AS city,
    customer_state AS state,
    coalesce(
        is_whole
        AND readable.is_id(customer_unique_id)
        AND char_length(customer_zip_code_prefix) <= 20
        AND char_length(customer_city) <= 200
        AND char_length(customer_state) <= 100, false) AS has_address,
    line
FROM raw.customers
WHERE customer_id <> '' AND customer_id !~ U&'\FFFD'
ORDER BY customer_id, place;

ALTER TABLE readable.customers ADD PRIMARY KEY (customer_id);
