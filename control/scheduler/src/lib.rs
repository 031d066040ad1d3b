//! The pure choice of a node for a pod: queue, snapshot, cycle, one file a plugin. No I/O.
