//! An API server small enough for tests: objects in memory, every request written down. It serves no watches: a test decides
//! itself what its view gets to see, and when.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// The server's state.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    requests: Vec<String>,
    refuse: Option<(Method, &'static str, &'static str)>,
}

/// A handle on the server; clones are the same server.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    /// A client of this server.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Refuses requests of this method from now on, with a reason and a message.
    pub fn refuse(&self, method: Method, reason: &'static str, message: &'static str) {
        self.with(|it| it.refuse = Some((method, reason, message)));
    }

    /// The requests so far that begin with `prefix` (`POST /api/..`).
    pub fn requests(&self, prefix: &str) -> Vec<String> {
        self.with(|it| it.requests.iter().filter(|it| it.starts_with(prefix)).cloned().collect())
    }

    /// The stored objects below `prefix`.
    pub fn objects(&self, prefix: &str) -> Vec<Value> {
        self.with(|it| {
            it.objects
                .range(prefix.to_owned()..)
                .take_while(|(path, _)| path.starts_with(prefix))
                .map(|(_, it)| it.clone())
                .collect()
        })
    }

    /// Waits until `count` requests begin with `prefix`.
    pub async fn wait_for(&self, prefix: &str, count: usize) {
        let arrived = async {
            while self.requests(prefix).len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), arrived).await;
        assert!(in_time.is_ok(), "{count} requests {prefix}: only {:?}", self.requests(""));
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body: Value =
            serde_json::from_slice(&body.collect_bytes().await.unwrap_or_default()).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let (status, answer) = self.with(|it| {
            it.requests.push(format!("{} {path}", parts.method));
            match it.refuse {
                Some((ref method, reason, message))
                    if *method == parts.method && !path.ends_with("/events") =>
                {
                    (StatusCode::FORBIDDEN, failure(403, reason, message))
                }
                _ => it.handle(&parts.method, &path, body),
            }
        });
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = status;
        response
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, mut body: Value) -> (StatusCode, Value) {
        self.version += 1;
        let version = self.version.to_string();
        let target = path.trim_end_matches("/status").to_owned();
        match *method {
            Method::POST => {
                let prefix = body["metadata"]["generateName"].as_str().unwrap_or_default();
                let name = body["metadata"]["name"]
                    .as_str()
                    .map_or_else(|| format!("{prefix}{version}"), Into::into);
                body["metadata"]["name"] = json!(name);
                body["metadata"]["uid"] = json!(format!("uid-{name}"));
                body["metadata"]["resourceVersion"] = json!(version);
                self.objects.insert(format!("{path}/{name}"), body.clone());
                (StatusCode::CREATED, body)
            }
            Method::PUT => {
                body["metadata"]["resourceVersion"] = json!(version);
                self.objects.insert(target, body.clone());
                (StatusCode::OK, body)
            }
            Method::DELETE if self.objects.contains_key(&target) => {
                (StatusCode::OK, self.objects.remove(&target).unwrap_or_default())
            }
            Method::GET if self.objects.contains_key(&target) => {
                (StatusCode::OK, self.objects[&target].clone())
            }
            _ => (StatusCode::NOT_FOUND, failure(404, "NotFound", "not found")),
        }
    }
}
