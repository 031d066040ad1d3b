//! Subresources that lead to a node or a pod: logs, exec, attach, port-forward, and the proxies.
//!
//! The server finds the pod's node, renames the parameters to the kubelet's, and then only moves bytes: an upgraded
//! connection (WebSocket or SPDY) is passed through untouched, a log is passed on as it arrives. Who may do it has
//! been decided before. Not here: the protocols inside those connections, and rewriting of links in proxied pages.

mod dial;
mod location;
mod log_options;
mod proxied;
mod upgrade;

use api::status::{ApiError, Reason};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt as _;

use crate::attributes::Attributes;
use crate::body::{Request, Response};
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::pki::{Pki, PkiError};
use crate::registry_access::Registry;
use crate::respond;
use dial::Dialer;
use location::{Location, Transport};

/// An error text of a kubelet is passed on up to this many bytes.
const ERROR_TEXT_LIMIT: usize = 2048;

/// Leads requests to kubelets and pods.
#[derive(Clone)]
pub struct Streaming {
    registry: Registry,
    dialer: Dialer,
}

impl Streaming {
    /// Calls kubelets with the client certificate of `pki`.
    pub fn new(pki: &Pki, registry: Registry) -> Result<Self, PkiError> {
        Ok(Self { registry, dialer: Dialer::new(pki)? })
    }

    /// Answers a request for `pods/{log,exec,attach,portforward}` or `{nodes,pods,services}/proxy`.
    pub async fn serve(&self, request: Request, asked: &Attributes) -> Response {
        let served = match (asked.resource.as_str(), asked.subresource.as_str()) {
            ("pods", "log") => self.log(request, asked).await,
            ("pods", "exec" | "attach" | "portforward") => self.connect(request, asked).await,
            (_, "proxy") => self.proxy(request, asked).await,
            _ => Err(ApiError::no_such_path()),
        };
        served.unwrap_or_else(|error| respond::error(&error))
    }

    async fn log(&self, request: Request, asked: &Attributes) -> Result<Response, ApiError> {
        let query = request.uri().query().unwrap_or_default();
        let options = log_options::LogOptions::parse(query, &asked.name)?;
        let pod = self.registry.get(rows::pods(), &asked.namespace, &asked.name).await?.value();
        let container = location::container(&pod, &options.container)?;
        let mut response = match location::node_name(&pod) {
            // Not scheduled: there is nothing to read yet, as upstream.
            None => Response::new(crate::body::empty()),
            Some(node) => {
                let path = location::log_path(&pod, container, &options);
                let target = self.locate(node, path).await?;
                let response = self.dialer.send(&target, bare(Method::GET)).await?;
                if !response.status().is_success() {
                    return Err(refusal(response, asked).await);
                }
                response
            }
        };
        response.headers_mut().clear();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    async fn connect(&self, request: Request, asked: &Attributes) -> Result<Response, ApiError> {
        let pod = self.registry.get(rows::pods(), &asked.namespace, &asked.name).await?.value();
        let path =
            location::connect_path(&pod, &asked.subresource, request.uri().query().unwrap_or_default())?;
        let node = location::node_name(&pod).ok_or_else(|| {
            ApiError::bad_request(format!("pod {} does not have a host assigned", asked.name))
        })?;
        let target = self.locate(node, path).await?;
        if !upgrade::is_wanted(request.headers()) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        self.upgrade(request, &target, asked).await
    }

    /// Everything below `nodes/NAME/proxy/` is the kubelet's own API; below a pod's or service's, whatever it serves.
    async fn proxy(&self, request: Request, asked: &Attributes) -> Result<Response, ApiError> {
        let path = location::proxy_path(request.uri(), !asked.namespace.is_empty());
        let target = match asked.resource.as_str() {
            "nodes" => self.locate(&asked.name, path).await?,
            resource => {
                let address =
                    proxied::address(&self.registry, resource, &asked.namespace, &asked.name).await?;
                Location { address, path, transport: Transport::Plain }
            }
        };
        if upgrade::is_wanted(request.headers()) {
            return self.upgrade(request, &target, asked).await;
        }
        let mut response = self.dialer.send(&target, request).await?;
        upgrade::strip_hop_headers(response.headers_mut());
        Ok(response)
    }

    async fn upgrade(
        &self,
        mut request: Request,
        target: &Location,
        asked: &Attributes,
    ) -> Result<Response, ApiError> {
        let client = hyper::upgrade::on(&mut request);
        let mut response = self.dialer.send(target, request).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response, asked).await);
        }
        let kubelet = hyper::upgrade::on(&mut response);
        upgrade::join(client, kubelet);
        Ok(response)
    }

    /// Where `path` of the kubelet of `node` is.
    async fn locate(&self, node: &str, path: String) -> Result<Location, ApiError> {
        let object = self.registry.get(rows::nodes(), "", node).await?.value();
        let address = location::kubelet_address(&object).ok_or_else(|| {
            ApiError::new(Reason::InternalError, format!("no preferred addresses found for node {node:?}"))
        })?;
        Ok(Location { address, path, transport: Transport::Kubelet })
    }
}

/// A request of nothing but a method.
fn bare(method: Method) -> Request {
    let mut request = Request::new(crate::body::empty());
    *request.method_mut() = method;
    request
}

/// What a kubelet refused, as an API error: its text, under the reason its status code stands for.
async fn refusal(response: Response, asked: &Attributes) -> ApiError {
    let status = response.status();
    let limited = http_body_util::Limited::new(response.into_body(), ERROR_TEXT_LIMIT);
    let collected: futures::future::BoxFuture<'static, _> = Box::pin(limited.collect());
    let body = match collected.await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => bytes::Bytes::new(),
    };
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    match status.as_u16() {
        400 => ApiError::bad_request(text),
        403 => ApiError::new(Reason::Forbidden, text),
        404 if text.is_empty() => ApiError::not_found(rows::pods(), &asked.name),
        404 => ApiError::new(Reason::NotFound, text),
        500 => ApiError::internal(text),
        code => ApiError::new(Reason::InternalError, format!("kubelet answered {code}: {text}")),
    }
}
