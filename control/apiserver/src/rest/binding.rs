//! Bindings: the scheduler's word that a pod shall run on a node, as `pods/x/binding` or `bindings`.

use api::ApiError;
use http::StatusCode;
use serde_json::{Value, json};

use super::modify::{Change, Part, modify, now};
use super::{Answer, Call, create, delete, input};
use crate::body::Request;

struct Bound(Value);

impl Change for Bound {
    fn make(&self, old: &Value) -> Result<Value, ApiError> {
        let mut pod = old.clone();
        api::kinds::pod::bind(&mut pod, &self.0, now())?;
        Ok(pod)
    }

    fn repeatable(&self) -> bool {
        true
    }
}

pub(crate) async fn create(call: &Call, request: Request) -> Result<Answer, ApiError> {
    let binding = input::subresource(call, request, &mut Vec::new()).await?;
    if !delete::names(&binding, call.name()) {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    bind(call, call.name(), binding).await
}

/// Binds the pod of that name in the call's namespace.
pub(crate) async fn bind(call: &Call, name: &str, binding: Value) -> Result<Answer, ApiError> {
    let pods = api::registry::lookup("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let call = Call {
        core: call.core.clone(),
        attributes: call.attributes.clone(),
        resource: pods,
        query: call.query.clone(),
        headers: call.headers.clone(),
        accepted: call.accepted,
        write: call.write.clone(),
    };
    let binding = create::admit_subresource(&call, binding).await?;
    modify(&call, name, Part::Decided, &Bound(binding), &mut Vec::new()).await?;
    let done =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::Tree(StatusCode::CREATED, done))
}
