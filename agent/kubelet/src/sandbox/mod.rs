//! What the containers of a pod share and no container owns: pinned namespaces, host name, /dev/shm, and the files
//! that every container gets (hosts, resolv.conf, hostname). There is no pause process.

pub mod files;
pub mod namespaces;
