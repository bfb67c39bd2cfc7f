//! The stable codes of this door's problems.
//!
//! Invariant: as in [`door::code`].

door::codes! {
    MODEL_UNKNOWN = ("model_unknown", 404, "There is no such read model",
        "`GET /v1/read` lists the read models.");
    ROW_NOT_FOUND = ("row_not_found", 404, "No row has this key",
        "The read model has no row with this key, or does not have it yet: pass the position \
         token of your command as `min_position`.");
    CURSOR_UNKNOWN = ("cursor_unknown", 404, "The cursor is unknown",
        "`after` takes the `next` of an earlier page of the same read model.");
    CURSOR_OF_OTHER_QUERY = ("cursor_of_other_query", 422, "The cursor belongs to another query",
        "A cursor belongs to the filters and the `sort` of its page. Pass the same ones with it, or \
         begin with the first page.");
    CURSOR_EXPIRED = ("cursor_expired", 410, "The read model was rebuilt",
        "The cursor belongs to rows that a rebuild has replaced. Begin with the first page.");
    QUERY_UNINDEXED = ("query_unindexed", 422, "No index serves the query",
        "The filters or the order would read all rows of a large read model. `detail` says what to \
         filter by, or which orders there are.");
    LIMIT_NEEDED = ("limit_needed", 422, "The answer comes in pages",
        "Rows as of a moment are not streamed: give a `limit`, and follow the header `Link`.");
    HISTORY_OFF = ("history_off", 409, "The read model keeps no history",
        "Only the present rows of this read model are kept. To see it as of a moment, its history must \
         be declared, and its rows built again: `annals projections rebuild`.");
    PARKED = ("parked", 503, "The row's stream is parked",
        "The read model cannot take up an event of the stream that the row belongs to, so the row is \
         out of date. An operator must act: `annals parked show` tells why.");
    QUERY_TOO_SLOW = ("query_too_slow", 503, "The query took too long",
        "Postgres did not finish within the time limit of a query. Filter more narrowly, sort by \
         another column, or ask again when the database is less busy.");
    EXPORTS_EXHAUSTED = ("exports_exhausted", 503, "Too many exports are under way",
        "Each stream of all rows holds a connection to Postgres. Ask again after `Retry-After`, or \
         ask for pages with `limit`.");
    SORT_VALUE_TOO_LONG = ("sort_value_too_long", 422, "A value is too long for a cursor",
        "The page ends at a row whose sorted values are too long for a cursor. Sort by another \
         column.");
    STREAM_NOT_FOUND = ("stream_not_found", 404, "There is no such stream",
        "No command for this stream was recorded, or it was not read yet: pass the position token \
         of your command as `min_position`.");
    LOG_CHANGED = ("log_changed", 409, "The log is not the one that the cursor was made of",
        "The log no longer holds what the client has read: it was replaced, or it lost records. What the \
         client made of the feed must be made again, from the beginning.");
    LOG_DAMAGED = ("log_damaged", 503, "The log is damaged",
        "No reader goes beyond a damaged place until an operator has examined it.");
    FEEDS_EXHAUSTED = ("feeds_exhausted", 503, "The node serves as many feeds as it may",
        "Ask another node, or ask again after `Retry-After`. Operators: `feed_followers_max`.");
    STORY_NOT_FOUND = ("story_not_found", 404, "There is no such conversation",
        "No command with this correlation id was recorded, or it was not read yet: pass the position \
         token of your command as `min_position`.");
    AGGREGATE_UNKNOWN = ("aggregate_unknown", 404, "The state of this stream is not known here",
        "The stream exists, but its category is not registered with this program, so its events \
         cannot be folded.");
    POSITION_INVALID = ("position_invalid", 400, "Not a position token",
        "`min_position` takes the position token from the answer to a command or a query.");
    POSITION_OF_OTHER_LOG = ("position_of_other_log", 409, "The position token is of another log",
        "A position token is valid only for the log that it comes from.");
    READ_MODEL_BEHIND = ("read_model_behind", 503, "The read model has not reached the position \
                                                    yet",
        "The read model did not reach `min_position` in time: `missing` records are still to be \
         taken up. Ask again after `Retry-After`, which follows from its speed, or wait longer with \
         `Prefer: wait` or `Annals-Timeout-Ms`.");
    READ_MODEL_UNAVAILABLE = ("read_model_unavailable", 503, "The read models do not answer",
        "Postgres does not answer, or not in time, or was never migrated. Commands go on.");
    READ_MODEL_OF_OTHER_VERSION = ("read_model_of_other_version", 503,
        "The rows are of another version of the read model",
        "This program expects other columns than the live rows have: they were made by another \
         version of the read model. Ask another node, or ask again after `Retry-After`. Operators: \
         `GET /v1/projections` says in `next` what to do.");
    LOG_UNAVAILABLE = ("log_unavailable", 503, "The log does not answer",
        "The events cannot be read now; ask again after `Retry-After`.");
    STREAM_DAMAGED = ("stream_damaged", 503, "The stream's records were changed or are gone",
        "A record of this stream is not the record that was read before. The stream is not shown \
         until an operator has examined the log.");
    STATE_TOO_LARGE = ("state_too_large", 422, "The stream's state is too large to be shown",
        "The state has more than `max` bytes. Read the events page by page instead.");
    VERSION_NOT_FOUND = ("version_not_found", 404, "The stream has no such version",
        "The stream has `version` events so far, as far as the index has read the log: pass the \
         position token of your command as `min_position`.");
    MOMENT_UNCLEAR = ("moment_unclear", 422, "The moments that are asked for contradict each other",
        "`detail` says which parameters: a version and a time for one moment, two moments in the wrong \
         order, or a kind of time without a time.");
    FOLD_UNFINISHED = ("fold_unfinished", 503, "The stream is long, and not folded to its end yet",
        "One answer folds for a bounded time. The `folded` events are kept: ask again after \
         `Retry-After`, and the fold goes on from there.");
    RANGE_TOO_LONG = ("range_too_long", 422, "Too many events lie in the range",
        "Each event of the range must be looked at for the answer. Ask for fewer events.");
    WHY_UNKNOWN = ("why_unknown", 409, "What made the row cannot be told",
        "The read model writes its rows with SQL of its own, which cannot be run for single events.");
    WHY_TOO_LONG = ("why_too_long", 422, "Too many commits would have to be looked at",
        "Not all versions of these rows are kept, so that the log would have to be searched. Declare the \
         full history of the read model and build it again: `annals projections rebuild`. Then the \
         versions of the row name its commits.");
    STATE_IMPOSSIBLE = ("state_impossible", 422, "The rules cannot fold such a history",
        "By business time, some events are left out although they come earlier in the stream, and \
         the rules fail on what is left. Ask with `time=recorded`, or by version.");
    UPGRADE_NEEDED = ("upgrade_needed", 503, "A newer program is needed",
        "The stream has an event of a type or shape that this program does not know. Nothing is \
         damaged: a newer program reads it. `schema=recorded` shows the events as they are.");
    STREAM_FROZEN = ("stream_frozen", 503, "The stream is frozen",
        "The rules of this program fail on an event of the stream, so no command is decided on \
         it. Its events can still be read.");
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_code_means_two_things() {
        let shared = door::code::ALL.iter();
        let mut names: Vec<_> = shared.chain(ALL).map(|code| code.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
