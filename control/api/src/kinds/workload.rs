//! What Deployment, ReplicaSet and DaemonSet share: a selector, a pod template, columns about its containers.
