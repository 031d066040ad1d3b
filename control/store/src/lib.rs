//! Revisioned bytes on etcd: one watch, one event log, snapshots, leases. Knows keys, not kinds.
