//! `scale`: the view of a workload that shows and sets its size alone.

use api::ApiError;
use api::decode::Target;
use api::kinds::scale;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::modify::{Change, Outcome, Part, modify};
use super::{Answer, Call, create, input, patch as patches};
use crate::body::Request;
use crate::object::{ToValue as _, metadata_text};

/// Where the new Scale comes from.
enum Sized {
    Given(Value),
    Patched { kind: api::patch::Kind, body: Bytes },
}

struct Resize<'a> {
    call: &'a Call,
    size: Sized,
}

impl Change for Resize<'_> {
    fn make(&self, old: &Value) -> Result<Value, ApiError> {
        let wanted = match &self.size {
            Sized::Given(scale) => scale.clone(),
            Sized::Patched { kind, body } => {
                let target = target(self.call)?;
                api::patch::apply(&scale::of(old), body, *kind, &target, self.call.write.validation)?.object
            }
        };
        let mut workload = old.clone();
        let invalid = |errors| ApiError::invalid(("autoscaling", "Scale"), self.call.name(), errors);
        scale::apply(&mut workload, &wanted).map_err(invalid)?;
        Ok(workload)
    }

    fn repeatable(&self) -> bool {
        match &self.size {
            Sized::Given(scale) => metadata_text(scale, "resourceVersion").is_empty(),
            Sized::Patched { .. } => true,
        }
    }
}

fn target(call: &Call) -> Result<Target, ApiError> {
    call.resource.subresource("scale").map(Target::subresource).ok_or_else(ApiError::no_such_path)
}

pub(crate) async fn get(call: &Call) -> Result<Answer, ApiError> {
    let object = call.core.registry.get(call.resource, call.namespace(), call.name()).await?;
    Ok(Answer::Tree(StatusCode::OK, scale::of(&create::shown(call, &object))))
}

pub(crate) async fn update(
    call: &Call,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let given = input::subresource(call, request, warnings).await?;
    resize(call, Sized::Given(given), warnings).await
}

pub(crate) async fn patch(
    call: &Call,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Answer, ApiError> {
    let kind = patches::kind(call)?;
    let body = input::read(request).await?;
    resize(call, Sized::Patched { kind, body }, warnings).await
}

async fn resize(call: &Call, size: Sized, warnings: &mut Vec<String>) -> Result<Answer, ApiError> {
    let outcome = modify(call, call.name(), Part::Object, &Resize { call, size }, warnings).await?;
    let workload = match outcome {
        Outcome::Stored(object) => object.value(),
        Outcome::Removed(value) | Outcome::DryRun(value) => value,
    };
    Ok(Answer::Tree(StatusCode::OK, scale::of(&workload)))
}
