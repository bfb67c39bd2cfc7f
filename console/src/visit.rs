//! One request to the console: its path, its parameters, and the node that it may ask.
//!
//! Invariant: what a page asks of the node carries the visitor's tenant, credentials and share of
//! memory, so that the node's limits count for it. Deliberately absent: cookies of the console's own.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use door::header::TENANT;
use door::{Charge, Correlation};
use kernel::TenantId;

use crate::Console;
use crate::node::{Node, PASSED_ON, Trouble, with_query};

/// The parameter that names the tenant.
const TENANT_PARAMETER: &str = "tenant";

/// What a page needs to know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) console: Console,
    pub(crate) node: Node,
    /// The path of the page.
    pub(crate) path: String,
    /// Its parameters, without the tenant.
    pub(crate) query: Vec<(String, String)>,
    /// The tenant whose streams and rows are shown.
    pub(crate) tenant: Result<TenantId, Trouble>,
}

impl Visit {
    /// The value of a parameter that is given and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let given = self.query.iter().find(|(given, _)| given == name);
        let value = given.map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// The tenant, if it is not the usual one.
    pub(crate) fn foreign_tenant(&self) -> Option<&str> {
        let tenant = self.tenant.as_ref().ok()?;
        (*tenant != TenantId::default()).then(|| tenant.as_str())
    }

    /// The address of a page of the console for the same tenant.
    pub(crate) fn link<'q>(
        &'q self,
        path: &str,
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> String {
        let tenant = self.foreign_tenant();
        let tenant = tenant.map(|tenant| (TENANT_PARAMETER, tenant));
        with_query(path, query.into_iter().chain(tenant))
    }

    /// The address of this page with parameters changed or taken away, from its first rows on.
    pub(crate) fn changed(&self, changes: &[(&str, Option<&str>)]) -> String {
        let is_changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
        let new = changes
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)));
        self.kept(|name, _| !is_changed(name), new)
    }

    /// The address of this page with those parameters that `keep` names and with new ones, from its
    /// first rows on.
    pub(crate) fn kept<'a>(
        &'a self,
        keep: impl Fn(&str, &str) -> bool,
        new: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> String {
        let all = self.query.iter().map(|(name, value)| (&**name, &**value));
        let kept = all.filter(|(name, value)| {
            keep(name, value) && !value.is_empty() && !["after", "from"].contains(name)
        });
        self.link(&self.path, kept.chain(new).collect::<Vec<_>>())
    }

    /// The node, for the visitor's tenant.
    pub(crate) fn node(&self) -> Result<&Node, Trouble> {
        match &self.tenant {
            Ok(_) => Ok(&self.node),
            Err(trouble) => Err(trouble.clone()),
        }
    }
}

impl FromRequestParts<Console> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        let query = form_urlencoded::parse(query.as_bytes()).into_owned();
        let (tenants, query): (Vec<_>, Vec<_>) =
            query.partition(|(name, _)| name == TENANT_PARAMETER);
        let tenant = tenants
            .iter()
            .map(|(_, value)| value.trim())
            .find(|value| !value.is_empty());
        let tenant = tenant.map_or_else(|| Ok(TenantId::default()), tenant_of);
        let node = Node {
            routes: console.routes(),
            headers: headers(parts, tenant.as_ref().ok()),
            extensions: extensions(&parts.extensions),
        };
        Ok(Self {
            console: console.clone(),
            node,
            path: parts.uri.path().to_owned(),
            query,
            tenant,
        })
    }
}

fn tenant_of(text: &str) -> Result<TenantId, Trouble> {
    text.parse().map_err(|error| {
        let title = "Not the name of a tenant";
        Trouble::new(StatusCode::BAD_REQUEST, title, format!("{text:?}: {error}"))
    })
}

fn headers(parts: &Parts, tenant: Option<&TenantId>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in PASSED_ON {
        for value in parts.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    let tenant = tenant.filter(|tenant| **tenant != TenantId::default());
    if let Some(tenant) = tenant.and_then(|tenant| HeaderValue::from_str(tenant.as_str()).ok()) {
        headers.insert(TENANT, tenant);
    }
    headers
}

/// What the server knows about a request. The parts of the console's own path must not go on: the
/// node's routes have their own.
fn extensions(given: &Extensions) -> Extensions {
    let mut passed_on = Extensions::new();
    passed_on.insert(Charge::of_request(given));
    if let Some(correlation) = given.get::<Correlation>() {
        passed_on.insert(correlation.clone());
    }
    passed_on
}
