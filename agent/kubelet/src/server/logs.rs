//! `/containerLogs`: which log file, what of it, streamed as it grows.

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::route::Target;
use super::{Body, Context, Query, text};
use crate::logs::format::Stream;
use crate::logs::reader::{LogOptions, send};
use crate::pods::actor::View;
use crate::pods::state::{container, name, namespace, uid};

/// Answers with a log.
pub async fn serve(context: &Context, target: &Target, query: &Query) -> Response<Body> {
    let options = match options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, &message),
    };
    let Some(view) = context.workers.find(&target.namespace, &target.pod) else {
        let message = format!("pod \"{}/{}\" not found", target.namespace, target.pod);
        return text(StatusCode::NOT_FOUND, &message);
    };
    let path = match log_path(context, &view.borrow(), &target.container, query.flag("previous")) {
        Ok(path) => path,
        Err((status, message)) => return text(status, &message),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let alive = alive(view, target.container.clone());
    tokio::spawn(async move {
        if let Err(error) = send(&path, &options, alive, &sender).await {
            // The reader may have left.
            let _ = sender.send(Err(error)).await;
        }
    });
    let stream = ReceiverStream::new(receiver).map(|chunk| chunk.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

/// Whether the run whose log is read goes on: the one that runs when the request comes.
fn alive(view: watch::Receiver<View>, container: String) -> impl Fn() -> bool {
    let first = view.borrow().running.get(&container).cloned();
    move || {
        first.is_some()
            && view.has_changed().is_ok()
            && view.borrow().running.get(&container) == first.as_ref()
    }
}

fn log_path(
    context: &Context,
    view: &View,
    name_of_container: &str,
    previous: bool,
) -> Result<std::path::PathBuf, (StatusCode, String)> {
    let pod = &*view.pod;
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    if container(pod, name_of_container).is_none() {
        let message = format!("container {name_of_container} is not valid for pod {}", name(pod));
        return Err(bad(message));
    }
    let (current, before) = view.attempts.get(name_of_container).copied().unwrap_or((None, None));
    let attempt = if previous { before } else { current };
    let Some(attempt) = attempt else {
        let message = if previous {
            format!(
                "previous terminated container \"{name_of_container}\" in pod \"{}\" not found",
                name(pod)
            )
        } else {
            let reason = waiting_reason(view, name_of_container);
            format!(
                "container \"{name_of_container}\" in pod \"{}\" is waiting to start: {reason}",
                name(pod)
            )
        };
        return Err(bad(message));
    };
    let directory = context.host.config.pod_log_dir(namespace(pod), name(pod), uid(pod));
    let path = directory.join(name_of_container).join(format!("{attempt}.log"));
    if path.exists() {
        Ok(path)
    } else {
        Err((StatusCode::NOT_FOUND, format!("no log of {name_of_container} is kept")))
    }
}

fn waiting_reason(view: &View, container: &str) -> String {
    let lists = [&view.status.container_statuses, &view.status.init_container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|status| status.name == container);
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
    waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or("ContainerCreating".into())
}

fn options(query: &Query, now: Timestamp) -> Result<LogOptions, String> {
    let number = |name: &str| match query.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("{name}: \"{text}\" is not a number that is zero or more")),
    };
    let seconds = number("sinceSeconds")?;
    let since = match (seconds, query.get("sinceTime").filter(|text| !text.is_empty())) {
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).map_err(|_| "sinceSeconds: too large".to_owned())?;
            Some(now.checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
        }
        (None, Some(text)) => {
            Some(text.parse().map_err(|_| format!("sinceTime: \"{text}\" is no RFC 3339 time"))?)
        }
        (None, None) => None,
    };
    let stream = match query.get("stream") {
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        _ => None,
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?,
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_become_options_or_are_named() {
        let now = Timestamp::from_second(1000).unwrap();
        let read = |text: &str| options(&Query::parse(text), now);
        let found =
            read("follow=true&tailLines=5&sinceSeconds=10&timestamps=1&limitBytes=7&stream=Stderr").unwrap();
        assert!(found.follow && found.timestamps);
        assert_eq!((found.tail_lines, found.limit_bytes), (Some(5), Some(7)));
        assert_eq!(found.since, Some(Timestamp::from_second(990).unwrap()));
        assert_eq!(found.stream, Some(Stream::Stderr));
        assert_eq!(
            read("tailLines=-1").unwrap_err(),
            "tailLines: \"-1\" is not a number that is zero or more"
        );
        assert_eq!(read("sinceTime=noon").unwrap_err(), "sinceTime: \"noon\" is no RFC 3339 time");
    }
}
