-- Read models as they were: the views over the versions of rows, and the moment that they show.

CREATE SCHEMA IF NOT EXISTS read_as_of;
CREATE SCHEMA IF NOT EXISTS read_history;

COMMENT ON SCHEMA read_as_of IS
    'Read models as of the moment in the setting annals.as_of: SET annals.as_of = ''2026-03-01T12:00Z''.';
COMMENT ON SCHEMA read_history IS 'Every version of the rows of read models.';

-- The setting is a time, or for each partition the time and position of the last commit that counts:
-- {"0": ["2026-03-01T12:00:00Z", 17], …}; a partition that is absent has none. Without the setting all
-- commits count.
CREATE FUNCTION annals.as_of_time(partition integer) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE left(current_setting('annals.as_of', true), 1)
        WHEN '' THEN 'infinity'::timestamptz
        WHEN '{' THEN coalesce(
            (current_setting('annals.as_of')::jsonb -> partition::text ->> 0)::timestamptz,
            '-infinity'::timestamptz)
        ELSE coalesce(current_setting('annals.as_of', true)::timestamptz, 'infinity'::timestamptz)
    END
$$;

CREATE FUNCTION annals.as_of_position(partition integer) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE left(current_setting('annals.as_of', true), 1)
        WHEN '{' THEN coalesce(
            (current_setting('annals.as_of')::jsonb -> partition::text ->> 1)::bigint,
            9223372036854775807)
        ELSE 9223372036854775807
    END
$$;

COMMENT ON FUNCTION annals.as_of_time(integer) IS
    'Up to which time commits of a partition count, by the setting annals.as_of.';
COMMENT ON FUNCTION annals.as_of_position(integer) IS
    'Up to which position commits of a partition count at that time, by the setting annals.as_of.';
