//! What a cluster is made of: the registry table, schemas, selectors, patches, defaults, validation, table columns. Data and pure functions; no I/O.
