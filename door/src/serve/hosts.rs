//! Checks the host that a request names and the page that it comes from.
//!
//! A page in a browser can make its own host name resolve to 127.0.0.1, and then read and write
//! what is served there as if it were the page's own server. Invariant: on loopback, requests for
//! other names than loopback's and the configured ones are refused; on every address, so are
//! requests of pages that were not served here. Deliberately absent: who the client is.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use crate::code;
use crate::header::invalid;
use crate::problem::Problem;

/// The names by which a listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    /// The address on which it listens.
    own: IpAddr,
    /// Names from the configuration, in lower case.
    names: Vec<String>,
}

impl Hosts {
    pub(super) fn new(listener: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| plain(name)).collect();
        Self {
            own: listener.ip().to_canonical(),
            names,
        }
    }

    /// Checks that the request names this server and does not come from a foreign page.
    ///
    /// # Errors
    /// `header_invalid`, `host_unknown` or `origin_foreign`.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut given = headers.get_all(header::HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => authority_of(host.as_bytes()),
            _ => return Err(invalid(&header::HOST, "there must be exactly one")),
        };
        let Some(host) = host else {
            return Err(invalid(&header::HOST, "it must be HOST or HOST:PORT"));
        };
        let in_line = uri.authority();
        if in_line.is_some_and(|line| !line.as_str().eq_ignore_ascii_case(host.as_str())) {
            let why = "it differs from the host in the request line";
            return Err(invalid(&header::HOST, why));
        }
        if !self.is_ours(host.host()) {
            let detail = format!(
                "{:?} is not a name of this server; if clients should use this name, add it to \
                 the setting hosts",
                host.host()
            );
            return Err(Problem::new(code::HOST_UNKNOWN, detail));
        }
        for origin in headers.get_all(header::ORIGIN) {
            if !self.is_own_page(origin.as_bytes(), &host) {
                let detail = "the request comes from a page that this server did not serve; if \
                              the page should be allowed, add its host to the setting hosts";
                return Err(Problem::new(code::ORIGIN_FOREIGN, detail));
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = plain(host);
        if self.names.contains(&host) {
            return true;
        }
        // On other addresses than loopback, with no names configured, any name is accepted: the
        // listener cannot know by which names it is reached.
        let is_open = !self.own.is_loopback() && self.names.is_empty();
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        is_open
            || host == "localhost"
            || host
                .parse()
                .is_ok_and(|address| is_loopback(address) || address == self.own)
    }

    /// Whether an origin is that of a page from this server or from a configured name.
    fn is_own_page(&self, origin: &[u8], host: &Authority) -> bool {
        let split = std::str::from_utf8(origin).ok();
        let Some((scheme, rest)) = split.and_then(|origin| origin.split_once("://")) else {
            return false;
        };
        let port = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some(origin) = authority_of(rest.as_bytes()) else {
            return false;
        };
        let same_name = plain(origin.host()) == plain(host.host());
        let same_port = origin.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port);
        (same_name && same_port) || self.names.contains(&plain(origin.host()))
    }
}

/// `HOST` or `HOST:PORT`, and nothing else.
fn authority_of(text: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(text).ok()?;
    let rest = authority.as_str().strip_prefix(authority.host())?;
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let is_plain = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    (is_plain && !authority.host().is_empty()).then_some(authority)
}

/// A host in the form for comparisons: lower case, no brackets, no dot at the end.
fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn code_of(hosts: &Hosts, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::try_from(*name).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        match hosts.check(&uri.parse().unwrap(), &map) {
            Ok(()) => "ok".to_owned(),
            Err(problem) => problem.code().to_owned(),
        }
    }

    #[test]
    fn on_loopback_only_its_names_and_configured_ones_are_served() {
        let hosts = Hosts::new(
            "127.0.0.1:4747".parse().unwrap(),
            &["Annals.Example.".to_owned()],
        );
        for (host, expected) in [
            ("localhost", "ok"),
            ("LocalHost:4747", "ok"),
            ("localhost.", "ok"),
            ("127.0.0.1:4747", "ok"),
            ("127.8.9.1", "ok"),
            ("[::1]:4747", "ok"),
            ("annals.example:80", "ok"),
            ("evil.example", "host_unknown"),
            ("evil.example:4747", "host_unknown"),
            ("localhost.evil.example", "host_unknown"),
            ("127.0.0.1.evil.example", "host_unknown"),
            ("10.0.0.1", "host_unknown"),
            ("user@localhost", "header_invalid"),
            ("localhost:x", "header_invalid"),
            ("", "header_invalid"),
        ] {
            assert_eq!(
                code_of(&hosts, "/livez", &[("host", host)]),
                expected,
                "{host}"
            );
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(code_of(&hosts, "/", &twice), "header_invalid");
        assert_eq!(code_of(&hosts, "/", &[]), "header_invalid");
        let line = "http://evil.example/livez";
        assert_eq!(
            code_of(&hosts, line, &[("host", "localhost")]),
            "header_invalid"
        );
        assert_eq!(
            code_of(&hosts, "http://localhost/", &[("host", "localhost")]),
            "ok"
        );
    }

    #[test]
    fn elsewhere_any_name_will_do_unless_some_are_configured() {
        let listener = "10.1.2.3:4747".parse().unwrap();
        let open = Hosts::new(listener, &[]);
        assert_eq!(code_of(&open, "/", &[("host", "any.example")]), "ok");
        assert_eq!(code_of(&open, "/", &[]), "header_invalid");
        let named = Hosts::new(listener, &["annals.example".to_owned()]);
        for (host, expected) in [
            ("annals.example", "ok"),
            ("10.1.2.3:4747", "ok"),
            ("localhost", "ok"),
            ("any.example", "host_unknown"),
        ] {
            assert_eq!(code_of(&named, "/", &[("host", host)]), expected, "{host}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused_and_our_own_is_not() {
        let hosts = Hosts::new(
            "[::1]:4747".parse().unwrap(),
            &["annals.example".to_owned()],
        );
        for (origin, expected) in [
            ("http://localhost:4747", "ok"),
            ("HTTP://LOCALHOST:4747", "ok"),
            ("https://annals.example", "ok"),
            ("null", "origin_foreign"),
            ("", "origin_foreign"),
            ("http://localhost", "origin_foreign"),
            ("http://localhost:3000", "origin_foreign"),
            ("http://127.0.0.1:4747", "origin_foreign"),
            ("http://evil.example", "origin_foreign"),
            ("http://evil.example:4747", "origin_foreign"),
            ("file://", "origin_foreign"),
            ("chrome-extension://localhost:4747", "origin_foreign"),
            ("http://localhost:4747@evil.example", "origin_foreign"),
            ("http://localhost:4747/x", "origin_foreign"),
        ] {
            let headers = [("host", "localhost:4747"), ("origin", origin)];
            assert_eq!(
                code_of(&hosts, "/v1/commands", &headers),
                expected,
                "{origin}"
            );
        }
        let two = [
            ("host", "localhost"),
            ("origin", "http://localhost"),
            ("origin", "null"),
        ];
        assert_eq!(code_of(&hosts, "/", &two), "origin_foreign");
        assert_eq!(code_of(&hosts, "/", &two[..2]), "ok");
    }
}
