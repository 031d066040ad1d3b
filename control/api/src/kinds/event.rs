//! core/v1 and events.k8s.io/v1 Event.

use crate::strategy::Strategy;

/// core/v1 Event.
#[derive(Debug, Clone, Copy)]
pub struct CoreEvent;
impl Strategy for CoreEvent {}

/// events.k8s.io/v1 Event.
#[derive(Debug, Clone, Copy)]
pub struct EventsEvent;
impl Strategy for EventsEvent {}
