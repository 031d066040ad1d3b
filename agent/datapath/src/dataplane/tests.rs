//! Root tests in network namespaces of their own.
