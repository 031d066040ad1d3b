//! LIST: a page of a collection at one revision.
//!
//! Which revision follows upstream's table of `resourceVersion` x `resourceVersionMatch` x `continue`; pages after the first
//! read the first one's revision from the store's earlier maps.

use api::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::Listing;

use super::{Answer, Call};
use crate::filter::Filter;
use crate::object::Meta;
use crate::query::{ListOptions, Match};
use crate::registry_access::from_store;
use crate::render::ListMeta;
use crate::respond;

pub(crate) async fn list(call: &Call) -> Result<Answer, ApiError> {
    let options = ListOptions::parse(&call.query, false)?;
    let filter = Filter::parse(&call.query, call.resource, call.namespace())?;
    let token = match options.continue_token.as_str() {
        "" => None,
        text => Some(Token::parse(text, &filter.prefix)?),
    };
    let listing = match read(call, &options, token.as_ref()).await {
        Ok(listing) => listing,
        Err(store::Error::Expired { .. }) if token.is_some() => {
            return Ok(Answer::Made(expired(token.as_ref(), &filter.prefix)));
        }
        Err(error) => return Err(from_store(error, call.resource, "")),
    };
    let page = Page::cut(&listing, &filter, token.as_ref().map_or("", |it| &it.start), options.limit);
    if page.more {
        call.core.registry.store().pin(&call.resource.key_prefix(None), &listing);
    }
    let meta = ListMeta {
        revision: listing.revision,
        continue_token: page.continue_token(&filter.prefix, listing.revision),
        remaining: page.remaining,
    };
    let pieces = call.view().list(&meta, page.bodies.iter());
    Ok(Answer::Made(respond::pieces(StatusCode::OK, pieces, call.delivery()).await))
}

/// The collection at the revision that the options ask for.
async fn read(
    call: &Call,
    options: &ListOptions,
    token: Option<&Token>,
) -> Result<Listing<Meta>, store::Error> {
    let store = call.core.registry.store();
    let prefix = call.resource.key_prefix(None);
    if let Some(revision) = token.and_then(|it| it.revision) {
        return store.exactly(&prefix, revision).await;
    }
    match (options.resource_version, options.version_match) {
        _ if token.is_some() => store.sync().await?,
        (None, _) => store.sync().await?,
        (Some(0), _) => {}
        (Some(revision), Match::Exact) => return store.exactly(&prefix, revision).await,
        (Some(revision), Match::Unset) if options.limit > 0 => return store.exactly(&prefix, revision).await,
        (Some(revision), _) => store.reach(revision).await?,
    }
    store.current(&prefix)
}

/// The objects of one page.
struct Page {
    bodies: Vec<Bytes>,
    last: String,
    more: bool,
    remaining: Option<usize>,
}

impl Page {
    fn cut(listing: &Listing<Meta>, filter: &Filter, start: &str, limit: usize) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut page = Self { bodies: Vec::new(), last: String::new(), more: false, remaining: None };
        let mut entries = listing.entries.range(&filter.prefix, start).filter(|it| filter.matches(&it.meta));
        for entry in entries.by_ref().take(limit) {
            page.bodies.push(entry.body.clone());
            page.last = entry.key.to_string();
        }
        if page.bodies.len() == limit
            && let Some(_next) = entries.next()
        {
            page.more = true;
            // With selectors upstream does not count, because it would have to read everything.
            page.remaining = filter.is_everything().then(|| 1 + entries.count());
        }
        page
    }

    fn continue_token(&self, prefix: &str, revision: i64) -> String {
        if self.more {
            Token { revision: Some(revision), start: format!("{}\0", self.last) }.encode(prefix)
        } else {
            String::new()
        }
    }
}

/// Where the next page begins.
struct Token {
    /// The revision of all pages; `None` after an expired one: go on with what is there now.
    revision: Option<i64>,
    /// Full key.
    start: String,
}

impl Token {
    fn encode(&self, prefix: &str) -> String {
        let start = self.start.strip_prefix(prefix).unwrap_or(&self.start);
        let document = json!({"v": "meta.k8s.io/v1", "rv": self.revision.unwrap_or(-1), "start": start});
        URL_SAFE_NO_PAD.encode(document.to_string())
    }

    fn parse(text: &str, prefix: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|it| invalid(&it.to_string()))?;
        let document: Value = serde_json::from_slice(&bytes).map_err(|it| invalid(&it.to_string()))?;
        if document["v"] != "meta.k8s.io/v1" {
            return Err(invalid("server does not recognize this encoded version"));
        }
        let start = document["start"]
            .as_str()
            .filter(|it| !it.is_empty())
            .ok_or_else(|| invalid("encoded start key empty"))?;
        let revision = document["rv"].as_i64().filter(|it| *it != 0);
        let revision = revision.ok_or_else(|| invalid("incorrect encoded start resourceVersion"))?;
        Ok(Self { revision: Some(revision).filter(|it| *it > 0), start: format!("{prefix}{start}") })
    }
}

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk \
was returned and now may show up in the list.";

/// 410 with a token that goes on from the same key in the present.
fn expired(token: Option<&Token>, prefix: &str) -> crate::body::Response {
    let mut status = ApiError::expired(EXPIRED).to_status_json();
    if let Some(token) = token {
        let present = Token { revision: None, start: token.start.clone() };
        status["metadata"] = json!({"continue": present.encode(prefix)});
    }
    respond::json(StatusCode::GONE, &status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went() {
        let token = Token { revision: Some(7), start: "/registry/pods/a/b\0".to_owned() };
        let text = token.encode("/registry/pods/");
        let back = Token::parse(&text, "/registry/pods/").unwrap();
        assert_eq!((back.revision, back.start.as_str()), (Some(7), "/registry/pods/a/b\0"));
        let inconsistent = Token { revision: None, start: back.start }.encode("/registry/pods/");
        assert_eq!(Token::parse(&inconsistent, "/registry/pods/").unwrap().revision, None);
    }

    #[test]
    fn broken_tokens_are_bad_requests() {
        for text in ["###", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":7,"start":""}"#)] {
            assert_eq!(Token::parse(text, "/p/").err().unwrap().code(), 400, "{text}");
        }
    }
}
