//! Pure decisions, one file a controller: plan(view, object, now) -> Plan. No I/O.
