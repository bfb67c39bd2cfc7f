//! The stable codes of this door's problems.
//!
//! Invariant: as in [`door::code`].

door::codes! {
    PROJECTION_UNKNOWN = ("projection_unknown", 404, "There is no such projection",
        "`GET /v1/projections` lists the projections.");
    ACTION_UNKNOWN = ("action_unknown", 404, "There is no such action",
        "The last part of the path names an action that is not known.");
    STREAM_NOT_PARKED = ("stream_not_parked", 404, "The stream is not parked",
        "The projection has not parked this stream of this tenant: see `GET /v1/parked`.");
    STATE_DOES_NOT_ALLOW = ("state_does_not_allow", 409, "The projection's state does not allow it",
        "The detail says what is missing or in the way. Nothing was changed.");
    REPLAY_UNKNOWN = ("replay_unknown", 404, "There is no such replay",
        "`GET /v1/replays` lists the replays of this node. Another node, or the command line, may have \
         it; after a restart, begin another one with `replace`.");
    REPLAY_NOT_POSSIBLE = ("replay_not_possible", 409, "The replay cannot do this",
        "The detail says what is in the way and what to do. Nothing was changed.");
    REPLAYS_EXHAUSTED = ("replays_exhausted", 409, "The node has as many replays as it takes",
        "End one of them, or use another node.");
    CONTROLS_OFF = ("controls_off", 403, "Nothing can be changed through this address",
        "A node that other machines can reach only shows how the projections are doing. Use the \
         command line.");
    OPERATION_UNAVAILABLE = ("operation_unavailable", 503, "The read models do not answer",
        "Postgres or the log does not answer. Ask again after `Retry-After`.");
}
