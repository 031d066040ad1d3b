//! `pods/x/eviction`: a deletion that asks politely. There are no disruption budgets yet, so the answer is always yes.

use api::ApiError;
use http::StatusCode;
use serde_json::json;

use super::{Answer, Call, create, delete, input};
use crate::body::Request;

pub(crate) async fn create(call: &Call, request: Request) -> Result<Answer, ApiError> {
    let eviction = input::subresource(call, request, &mut Vec::new()).await?;
    if !delete::names(&eviction, call.name()) {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let eviction = create::admit_subresource(call, eviction).await?;
    let mut options = delete::options_of(&eviction)?;
    options.dry_run |= call.write.dry_run;
    delete::one(call, call.name(), &options).await?;
    let done =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::Tree(StatusCode::CREATED, done))
}
