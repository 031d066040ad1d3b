//! A client for the roles of this process: the same handler chain, without a socket.
//!
//! Authorization, admission and metrics apply as to any client; only TLS and authentication are replaced by a name.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::BodyExt as _;

use crate::attributes::UserInfo;
use crate::body::Request;
use crate::core::Core;
use crate::handler::{Origin, handle};

/// A client that acts as `user`.
pub(crate) fn client(core: Arc<Core>, user: UserInfo) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (core, user) = (core.clone(), user.clone());
        async move {
            let request: Request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            Ok::<_, Infallible>(handle(core, request, Origin::InProcess(user)).await)
        }
    });
    kube::Client::new(service, "default")
}
