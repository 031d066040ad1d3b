//! The stages of a packet, generic over packet and table access; no_std, no unsafe.
#![no_std]
#![forbid(unsafe_code)]
