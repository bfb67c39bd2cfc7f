//! The stable codes of this door's problems.
//!
//! Invariant: as in [`door::code`].

door::codes! {
    MODEL_UNKNOWN = ("model_unknown", 404, "There is no such read model",
        "`GET /v1/read` lists the read models.");
    ROW_NOT_FOUND = ("row_not_found", 404, "No row has this key",
        "The read model has no row with this key, or not yet: bring the position token of your \
         command as `min_position`.");
    CURSOR_UNKNOWN = ("cursor_unknown", 404, "No page begins there",
        "`after` takes the `next` of an earlier page of the same read model.");
    STREAM_NOT_FOUND = ("stream_not_found", 404, "There is no such stream",
        "No command for this stream was recorded, or not yet: bring the position token of your \
         command as `min_position`.");
    AGGREGATE_UNKNOWN = ("aggregate_unknown", 404, "The state of this stream is not known here",
        "The stream exists, but its category is not registered with this program, so that its \
         events cannot be folded.");
    POSITION_INVALID = ("position_invalid", 400, "Not a position token",
        "`min_position` takes the token that a command or a query answered with.");
    POSITION_OF_OTHER_LOG = ("position_of_other_log", 409, "The position token is of another log",
        "Tokens say something of the log alone that they come from.");
    READ_MODEL_BEHIND = ("read_model_behind", 503, "The read model is not there yet",
        "It has not reached `min_position` in time; ask again after `Retry-After`, or give it \
         longer with `Annals-Timeout-Ms`.");
    READ_MODEL_UNAVAILABLE = ("read_model_unavailable", 503, "The read models do not answer",
        "Postgres does not answer, not in time, or was never migrated. Commands go on.");
    LOG_UNAVAILABLE = ("log_unavailable", 503, "The log does not answer",
        "The events cannot be read now; ask again after `Retry-After`.");
    STREAM_DAMAGED = ("stream_damaged", 503, "The stream's records are not what was read before",
        "A record of this stream was changed or is gone; nothing of it is shown until an operator \
         has looked at the log.");
    STATE_TOO_LARGE = ("state_too_large", 422, "The stream's state is too large to be shown",
        "It has more than `max` bytes; its events can be read page by page.");
    STREAM_FROZEN = ("stream_frozen", 503, "The stream is frozen",
        "The rules of this program cannot take up what the stream holds, and nothing more is \
         decided upon it; its events can be read.");
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
