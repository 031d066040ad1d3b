//! Pod interfaces, addresses and routes, by netlink. Knows nothing of Services.
