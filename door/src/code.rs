//! The stable codes of problems that are not rejections, each with its status and meaning.
//!
//! Invariant: names are frozen; a code has one status. A door adds codes of its own as constants
//! of [`Code`]. Deliberately absent: the codes of rejections, which belong to the rules.

/// A kind of problem. Its type URI is `urn:annals:problem:` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The frozen name: `[a-z][a-z0-9_]*`.
    pub name: &'static str,
    /// The HTTP status it travels with.
    pub status: u16,
    /// The title, the same for every occurrence.
    pub title: &'static str,
    /// What it means and what a client can do, for the documentation.
    pub meaning: &'static str,
}

/// Declares codes as constants, and `ALL` with each of them in order.
///
/// `codes! { NAME = ("name", status, "title", "meaning"); … }`
#[macro_export]
macro_rules! codes {
    ($($constant:ident = ($name:literal, $status:literal, $title:literal, $meaning:literal);)+) => {
        $(
            #[doc = $meaning]
            pub const $constant: $crate::Code = $crate::Code {
                name: $name,
                status: $status,
                title: $title,
                meaning: $meaning,
            };
        )+

        /// Every code declared here.
        pub const ALL: &[$crate::Code] = &[$($constant),+];
    };
}

codes! {
    REQUEST_INVALID = ("request_invalid", 400, "The request is malformed",
        "The request is malformed as a whole.");
    PATH_INVALID = ("path_invalid", 400, "The path is malformed",
        "A part of the path has the wrong shape; `parameter` names it if it is known.");
    QUERY_INVALID = ("query_invalid", 400, "The query is malformed",
        "A query parameter is unknown, repeated or has the wrong shape.");
    HEADER_INVALID = ("header_invalid", 400, "A header is malformed",
        "The header named by `header` is repeated or has the wrong shape.");
    JSON_INVALID = ("json_invalid", 400, "The body is not JSON",
        "The body is not one JSON text in UTF-8.");
    SHAPE_INVALID = ("shape_invalid", 400, "A field is missing, unknown or of the wrong shape",
        "The value at `pointer` (RFC 6901) does not fit the JSON schema. Not recorded.");
    ORIGIN_FOREIGN = ("origin_foreign", 403, "The request comes from a foreign page",
        "`Origin` names a page that this server did not serve. Nothing was attempted.");
    NOT_FOUND = ("not_found", 404, "No route has this path",
        "Check the path against `/openapi.json`.");
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, "The method is not allowed here",
        "The path exists, but not with this method; `Allow` lists its methods.");
    REQUEST_TIMEOUT = ("request_timeout", 408, "The request came too slowly",
        "The body did not arrive in time. Nothing was attempted.");
    BODY_TOO_LARGE = ("body_too_large", 413, "The body is too large",
        "The body or the line is larger than `max` bytes.");
    MEDIA_TYPE_UNSUPPORTED = ("media_type_unsupported", 415, "The media type is not supported",
        "The body's `Content-Type` is missing or not supported, or the body is compressed; \
         `Accept` lists the supported types.");
    HOST_UNKNOWN = ("host_unknown", 421, "The request was meant for another host",
        "`Host` is not a name of this server: a name of loopback, or one in the setting `hosts`. \
         Nothing was attempted.");
    INTERNAL = ("internal", 500, "Internal error",
        "A bug of the server. The server's own log says more under the correlation id.");
    NOT_READY = ("not_ready", 503, "The server is not ready",
        "A part of the server is not ready, or not ready yet; `checks` names it if it is known.");
    CONNECTIONS_EXHAUSTED = ("connections_exhausted", 503, "All connections are in use",
        "Nothing was attempted. Use fewer connections, or send the request again after \
         `Retry-After`.");
    MEMORY_EXHAUSTED = ("memory_exhausted", 503, "There is no memory for the request or its answer",
        "Send the request again after `Retry-After`. The outcome of a command may be unknown: \
         send the command again with the same `command_id` to learn it.");
}

/// The code for an error response without a code of its own, by its status.
pub(crate) fn of_status(status: u16) -> Code {
    match status {
        404 => NOT_FOUND,
        405 => METHOD_NOT_ALLOWED,
        408 => REQUEST_TIMEOUT,
        413 => BODY_TOO_LARGE,
        415 => MEDIA_TYPE_UNSUPPORTED,
        503 => NOT_READY,
        400..=499 => REQUEST_INVALID,
        _ => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_well_formed() {
        let mut names: Vec<_> = ALL.iter().map(|code| code.name).collect();
        assert!(
            names
                .iter()
                .all(|name| name.parse::<kernel::Category>().is_ok())
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
