//! Addresses of databases as they are shown: without passwords, and so that every tool takes them.
//!
//! Deliberately absent: reading them; the client library does.

/// The address of a database as a user can type it, and what else the user must do. The placeholder
/// of a hidden password is left out: it would be taken for the password.
#[must_use]
pub fn typed(url: &str) -> (String, &'static str) {
    let shown = standard(&without_password(url));
    let (address, parameters) = shown.split_once('?').unwrap_or((&shown, ""));
    let parameters: Vec<&str> = parameters
        .split('&')
        .filter(|parameter| !parameter.is_empty() && !parameter.ends_with("=***"))
        .collect();
    let mut typed = address.replacen(":***@", "@", 1);
    if !parameters.is_empty() {
        typed = format!("{typed}?{}", parameters.join("&"));
    }
    let hint = match shown.contains("***") {
        true => "; its password goes into the variable PGPASSWORD",
        false => "",
    };
    (typed, hint)
}

/// An address of Postgres with the scheme that every client library knows: some refuse the short
/// one, which means the same.
#[must_use]
pub fn standard(url: &str) -> String {
    match url.strip_prefix("postgres://") {
        Some(rest) => format!("postgresql://{rest}"),
        None => url.to_owned(),
    }
}

/// A URL without its password, which can be shown to anyone.
#[must_use]
pub fn without_password(url: &str) -> String {
    if let Some((address, parameters)) = url.split_once('?') {
        let hide = |parameter: &str| match parameter.split_once('=') {
            Some((name, _)) if name.ends_with("password") => format!("{name}=***"),
            _ => parameter.to_owned(),
        };
        let parameters: Vec<String> = parameters.split('&').map(hide).collect();
        return format!("{}?{}", without_password(address), parameters.join("&"));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else {
        return url.to_owned();
    };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{}", &rest[at..]),
        None => url.to_owned(),
    }
}
