//! Volumes of a pod on disk, in upstream's layout below `<root>/pods/<uid>/`: `payload` decides what files an API
//! object becomes, `atomic_writer` puts them there, `mounts` binds them into containers. Claims and CSI are not done.

pub mod atomic_writer;
pub mod mounts;
pub mod payload;
pub mod setup;
