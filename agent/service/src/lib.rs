//! Services and EndpointSlices to tables: categories, topology, Maglev, diff. Pure: no I/O.
