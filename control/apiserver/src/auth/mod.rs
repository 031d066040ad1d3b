//! Owned by apiserver-auth; filled there.
