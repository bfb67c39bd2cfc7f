-- The five files as they are: every cell a text, one row per record, loaded by COPY.
--
-- place: the record's place in its file. line: the line it begins in, from 1. is_whole: it has as
-- many fields as the header, and all of them are UTF-8 (what is missing stands here as null, what
-- is no UTF-8 with U+FFFD in it).

DROP SCHEMA IF EXISTS raw, readable, judged, expected CASCADE;
CREATE SCHEMA raw;

CREATE TABLE raw.orders (
    place bigint, line bigint, is_whole boolean,
    order_id text, customer_id text, order_status text, order_purchase_timestamp text,
    order_approved_at text, order_delivered_carrier_date text,
    order_delivered_customer_date text, order_estimated_delivery_date text
);
CREATE TABLE raw.order_items (
    place bigint, line bigint, is_whole boolean,
    order_id text, order_item_id text, product_id text, seller_id text,
    shipping_limit_date text, price text, freight_value text
);
CREATE TABLE raw.order_payments (
    place bigint, line bigint, is_whole boolean,
    order_id text, payment_sequential text, payment_type text, payment_installments text,
    payment_value text
);
CREATE TABLE raw.order_reviews (
    place bigint, line bigint, is_whole boolean,
    review_id text, order_id text, review_score text, review_comment_title text,
    review_comment_message text, review_creation_date text, review_answer_timestamp text
);
CREATE TABLE raw.customers (
    place bigint, line bigint, is_whole boolean,
    customer_id text, customer_unique_id text, customer_zip_code_prefix text,
    customer_city text, customer_state text
);
