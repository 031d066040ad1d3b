//! Bytes that both sides of the kernel boundary agree on: keys, values, drop reasons, limits. no_std.
