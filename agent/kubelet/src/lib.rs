//! A pod's life on containerd: source, actor, decision, status, probes, volumes, logs, exec, node registration.
