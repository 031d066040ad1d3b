//! WATCH: the current state if asked for, then changes as they happen.
//!
//! A watcher pulls from the store's log; nothing is queued for a slow client. When its cursor falls off the log, the stream ends
//! with an `ERROR` event of code 410.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use store::{Listing, Ordered};
use tokio::time::{Instant, sleep_until};

use super::{Answer, Call};
use crate::core::Core;
use crate::filter::Filter;
use crate::negotiate::Form;
use crate::object::Meta;
use crate::query::ListOptions;
use crate::registry_access::from_store;
use crate::render::View;
use crate::respond;

/// Between two BOOKMARK events.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A bookmark goes out this long before the stream ends, so that the client resumes close to its end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A stream lives a random time of 1 to 2 of these if the client does not say.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Bytes handed to the connection at once.
const CHUNK: usize = 64 * 1024;

pub(crate) async fn watch(call: &Call) -> Result<Answer, ApiError> {
    let options = ListOptions::parse(&call.query, true)?;
    let filter = Filter::parse(&call.query, call.resource, call.namespace())?;
    let fail = |it| from_store(it, call.resource, "");
    let store = call.core.registry.store();
    let prefix = call.resource.key_prefix(None);
    let (after, initial) = match start(call, &options).await.map_err(fail)? {
        Start::Listing(listing) => (listing.revision, Some(listing.entries)),
        Start::After(revision) => (revision, None),
    };
    let interest = filter.interest(call.resource, call.namespace());
    let events = match store.watch(&prefix, interest, after) {
        Ok(events) => events,
        Err(error) => return Ok(Answer::Made(refused(&fail(error)))),
    };
    let now = Instant::now();
    let lifetime = options.timeout_seconds.map_or_else(random_lifetime, Duration::from_secs);
    let mut state = Stream {
        core: call.core.clone(),
        view: call.view(),
        events,
        initial: initial.map(|entries| Initial { entries, from: filter.prefix.clone(), revision: after }),
        filter,
        bookmarks: options.bookmarks,
        mark_end: options.send_initial_events == Some(true) && options.bookmarks,
        next_bookmark: now + bookmark_delay(lifetime),
        end: now + lifetime,
        first: true,
        ended: false,
    };
    if state.initial.is_none() && options.send_initial_events == Some(true) {
        state.mark_end = false;
    }
    let frames = stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok(http_body::Frame::data(chunk)), state))
    });
    Ok(Answer::Made(respond::typed(
        StatusCode::OK,
        "application/json",
        StreamBody::new(frames).boxed_unsync(),
    )))
}

/// Where a watch begins.
enum Start {
    /// With the objects of a listing.
    Listing(Listing<Meta>),
    /// With the first change after a revision.
    After(i64),
}

async fn start(call: &Call, options: &ListOptions) -> Result<Start, store::Error> {
    let store = call.core.registry.store();
    let prefix = call.resource.key_prefix(None);
    let version = options.resource_version;
    match (options.send_initial_events, version) {
        // Events after a revision; a revision of the future is simply waited for.
        (None | Some(false), Some(revision)) if revision > 0 => return Ok(Start::After(revision)),
        (Some(false), _) => {
            store.sync().await?;
            return Ok(Start::After(store.revision()));
        }
        (_, None) => store.sync().await?,
        (_, Some(0)) => {}
        (_, Some(revision)) => store.reach(revision).await?,
    }
    Ok(Start::Listing(store.current(&prefix)?))
}

/// A stream whose only event is the error.
fn refused(error: &ApiError) -> crate::body::Response {
    let mut line = json!({"type": "ERROR", "object": error.to_status_json()}).to_string();
    line.push('\n');
    respond::typed(StatusCode::OK, "application/json", crate::body::full(line))
}

fn random_lifetime() -> Duration {
    LIFETIME.mul_f64(1.0 + rand::random::<f64>())
}

fn bookmark_delay(left: Duration) -> Duration {
    if left > BOOKMARK_EVERY + BOOKMARK_BEFORE_END {
        BOOKMARK_EVERY
    } else {
        left.saturating_sub(BOOKMARK_BEFORE_END)
    }
}

/// The objects that were there when the watch began, as far as they have not been sent.
struct Initial {
    entries: Ordered<Meta>,
    from: String,
    revision: i64,
}

struct Stream {
    core: Arc<Core>,
    view: View,
    events: store::Watch<Meta>,
    initial: Option<Initial>,
    filter: Filter,
    bookmarks: bool,
    mark_end: bool,
    next_bookmark: Instant,
    end: Instant,
    first: bool,
    ended: bool,
}

impl Stream {
    /// The next bytes; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(initial) = self.initial.take()
            && let Some(chunk) = self.initial_chunk(initial)
        {
            return Some(chunk);
        }
        loop {
            let core = self.core.clone();
            tokio::select! {
                () = core.shutdown.cancelled() => return None,
                () = sleep_until(self.end) => return None,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark += bookmark_delay(self.end.saturating_duration_since(self.next_bookmark)).max(BOOKMARK_BEFORE_END * 2);
                    return Some(self.bookmark(self.events.position(), false));
                }
                batch = self.events.next() => match batch {
                    Ok(batch) => {
                        let chunk = self.changes(&batch);
                        if !chunk.is_empty() {
                            return Some(chunk.into());
                        }
                    }
                    Err(expired) => {
                        self.ended = true;
                        let error = ApiError::expired(format!("too old resource version: {} ({})", self.events.position(), expired.oldest));
                        return Some(line("ERROR", error.to_status_json().to_string().as_bytes()).into());
                    }
                },
            }
        }
    }

    /// ADDED events for some of the objects left, and the bookmark behind the last; `None` if there is nothing to say.
    fn initial_chunk(&mut self, initial: Initial) -> Option<Bytes> {
        let mut chunk = Vec::new();
        let mut rest_from = None;
        for entry in initial.entries.range(&self.filter.prefix, &initial.from) {
            if chunk.len() >= CHUNK {
                rest_from = Some(entry.key.to_string());
                break;
            }
            if self.filter.matches(&entry.meta) {
                let object = self.view.event(entry, entry.revision, self.first);
                self.first = false;
                chunk.extend(line("ADDED", &object));
            }
        }
        match rest_from {
            Some(from) => self.initial = Some(Initial { from, ..initial }),
            None if self.mark_end => chunk.extend_from_slice(&self.bookmark(initial.revision, true)),
            None => {}
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// What a batch of the log means to this watcher: entering the selector is ADDED, leaving it DELETED.
    fn changes(&mut self, batch: &[Arc<store::Event<Meta>>]) -> Vec<u8> {
        let mut chunk = Vec::new();
        for event in batch {
            let old = event.old.as_deref().filter(|it| self.filter.matches_entry(it));
            let new = event.new.as_deref().filter(|it| self.filter.matches_entry(it));
            let (kind, object) = match (old, new) {
                (None, Some(new)) => ("ADDED", new),
                (Some(_), Some(new)) => ("MODIFIED", new),
                (Some(old), None) => ("DELETED", old),
                (None, None) => continue,
            };
            let object = self.view.event(object, event.revision, self.first);
            self.first = false;
            chunk.extend(line(kind, &object));
        }
        chunk
    }

    fn bookmark(&mut self, revision: i64, end_of_initial_events: bool) -> Bytes {
        let mut object: Value = self.view.bookmark(revision, end_of_initial_events);
        if self.first && self.view.form == Form::Table {
            object["rows"] = json!([]);
        }
        line("BOOKMARK", object.to_string().as_bytes()).into()
    }
}

fn line(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(object.len() + kind.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line
}
