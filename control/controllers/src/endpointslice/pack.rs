//! Puts endpoints into slices of at most 100 with as few writes as possible: an endpoint stays in its slice, changed slices
//! are filled before others are touched, and emptied slices serve again before new ones are made.
//! It does not decide which endpoints exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::desired::{Groups, Shape};
use super::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, is_headless};
use crate::ownership::controller_reference;
use crate::plan::{self, Action, Target};

/// Most endpoints in a slice (upstream's --max-endpoints-per-slice).
pub const MAX_ENDPOINTS: usize = 100;

/// Annotation: when the change happened that led to the slice's present content.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A slice being filled: an existing one, or one to be made.
struct Draft {
    existing: Option<Arc<EndpointSlice>>,
    shape: Shape,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// The writes that turn `slices` into `groups`.
pub fn pack(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    groups: Groups,
    triggered: Option<Timestamp>,
) -> Vec<Action> {
    let mut by_shape: BTreeMap<Shape, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        let shape = Shape::of(&slice.address_type, slice.ports.as_ref());
        by_shape.entry(shape).or_default().push(slice.clone());
    }
    let mut drafts: Vec<Draft> = Vec::new();
    for (shape, endpoints) in groups {
        let existing = by_shape.remove(&shape).unwrap_or_default();
        drafts.extend(fill(shape, endpoints, existing));
    }
    // Slices of shapes that are not wanted any more, and emptied ones, can take over for slices that would have to be made.
    let mut idle: Vec<Arc<EndpointSlice>> = by_shape.into_values().flatten().collect();
    let mut wanted = Vec::new();
    for draft in drafts {
        let is_placeholder = draft.shape.ports.is_empty() && draft.endpoints.is_empty();
        match draft.existing {
            Some(slice) if draft.endpoints.is_empty() && !is_placeholder => idle.push(slice),
            existing => wanted.push(Draft { existing, ..draft }),
        }
    }
    for draft in wanted.iter_mut().filter(|it| it.existing.is_none()) {
        if let Some(at) = idle.iter().position(|it| it.address_type == draft.shape.address_type) {
            draft.existing = Some(idle.remove(at));
        }
    }
    let mut actions: Vec<Action> =
        wanted.into_iter().filter_map(|it| write(service, it, triggered)).collect();
    actions.extend(idle.iter().map(|it| plan::delete(&**it, None)));
    actions
}

/// Identity of an endpoint across changes: its pod.
fn identity(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref()
}

fn fill(shape: Shape, endpoints: Vec<Endpoint>, existing: Vec<Arc<EndpointSlice>>) -> Vec<Draft> {
    let is_placeholder = endpoints.is_empty();
    let mut left: BTreeMap<String, Endpoint> =
        endpoints.into_iter().filter_map(|it| Some((identity(&it)?.to_owned(), it))).collect();
    let mut drafts: Vec<Draft> = existing
        .into_iter()
        .map(|slice| {
            let kept: Vec<Endpoint> =
                slice.endpoints.iter().filter_map(|it| left.remove(identity(it)?)).collect();
            let changed = slice.endpoints != kept;
            Draft { existing: Some(slice), shape: shape.clone(), endpoints: kept, changed }
        })
        .collect();
    let mut rest: Vec<Endpoint> = left.into_values().collect();
    let room = |it: &Draft| MAX_ENDPOINTS.saturating_sub(it.endpoints.len());
    // Fullest first, so that slices stay few.
    drafts.sort_by_key(|it| room(it));
    for draft in drafts.iter_mut().filter(|it| it.changed) {
        let part = rest.split_off(rest.len().saturating_sub(room(draft)));
        draft.endpoints.extend(part);
    }
    let tail = rest.len() % MAX_ENDPOINTS;
    if tail > 0
        && let Some(draft) = drafts.iter_mut().find(|it| !it.changed && room(it) >= tail)
    {
        let part = rest.split_off(rest.len() - tail);
        draft.endpoints.extend(part);
        draft.changed = true;
    }
    let fresh = |endpoints: &[Endpoint]| Draft {
        existing: None,
        shape: shape.clone(),
        endpoints: endpoints.to_vec(),
        changed: true,
    };
    drafts.extend(rest.chunks(MAX_ENDPOINTS).map(fresh));
    if is_placeholder && drafts.is_empty() {
        drafts.push(fresh(&[]));
    }
    drafts
}

fn write(service: &Service, draft: Draft, triggered: Option<Timestamp>) -> Option<Action> {
    let labels = labels(service);
    let reused = draft
        .existing
        .as_ref()
        .is_some_and(|it| Shape::of(&it.address_type, it.ports.as_ref()) != draft.shape);
    let relabelled = draft.existing.as_ref().is_some_and(|it| it.metadata.labels.as_ref() != Some(&labels));
    if !(draft.changed || reused || relabelled) {
        return None;
    }
    let mut metadata = match &draft.existing {
        Some(slice) => slice.metadata.clone(),
        None => ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
    };
    metadata.labels = Some(labels);
    stamp(&mut metadata, triggered);
    let slice = EndpointSlice {
        address_type: draft.shape.address_type.clone(),
        ports: Some(draft.shape.endpoint_ports()),
        endpoints: draft.endpoints,
        metadata,
    };
    Some(match draft.existing {
        Some(_) => Action::Replace { target: Target::of(&slice), object: plan::to_value(&slice) },
        None => plan::create(&slice, None),
    })
}

/// The Service's own labels with the three of this controller.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

/// Marks in `metadata` when the change came about that the slice now tells.
fn stamp(metadata: &mut ObjectMeta, triggered: Option<Timestamp>) {
    if let Some(at) = triggered {
        let text = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap_or_else(|_| at.to_string());
        metadata.annotations.get_or_insert_default().insert(TRIGGER_TIME.into(), text);
    }
}
