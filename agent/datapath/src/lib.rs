//! Everything that touches aya: load, attach, pin, maps, events, and the bpf(2) calls aya lacks.
