//! Addresses of pods: a directory in which each allocated address is a file, named by the address and holding the pod's uid.
//!
//! Creating the file exclusively *is* the allocation, so it survives any crash and needs no journal; listing the directory is the
//! recovery. Knows nothing of interfaces.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Cidr;

/// The first addresses of a prefix that are never given to a pod: the network (or subnet-router anycast) address and one kept for the node.
const RESERVED: u128 = 2;
/// At most this many addresses of a prefix are used, so that the data plane can index a node's pods by a 16-bit number.
const USABLE: u128 = 1 << 16;

/// Why no address could be given.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// The directory could not be read or written.
    #[error("address file {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// All addresses of a podCIDR are in use.
    #[error("no free address in podCIDR {0}")]
    Exhausted(Cidr),
    /// The node has no podCIDR yet.
    #[error("the node has no podCIDR yet")]
    NoCidr,
}

/// The allocator of one node.
#[derive(Debug)]
pub struct Ipam {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cidrs: Vec<Cidr>,
    /// Per podCIDR, the number to try next: addresses are reused as late as possible, since peers may still talk to a dead pod's.
    next: Vec<u128>,
}

impl Ipam {
    /// Opens (and creates) the directory.
    pub fn open(directory: &Path) -> Result<Self, IpamError> {
        fs::create_dir_all(directory).map_err(|source| file_error(directory, source))?;
        Ok(Self { directory: directory.to_owned(), state: Mutex::default() })
    }

    /// Sets the podCIDRs to allocate from, one address from each. Addresses given before stay valid.
    pub fn set_cidrs(&self, cidrs: &[Cidr]) -> Result<(), IpamError> {
        let taken: Vec<IpAddr> = self.list()?.into_iter().map(|(address, _)| address).collect();
        let next = cidrs.iter().map(|cidr| after_highest(*cidr, &taken)).collect();
        *self.lock() = State { cidrs: cidrs.to_vec(), next };
        Ok(())
    }

    /// The podCIDRs in use.
    pub fn cidrs(&self) -> Vec<Cidr> {
        self.lock().cidrs.clone()
    }

    /// The pod's addresses in the order of the podCIDRs: those it has already, or new ones.
    pub fn allocate(&self, uid: &str) -> Result<Vec<IpAddr>, IpamError> {
        let mut state = self.lock();
        if state.cidrs.is_empty() {
            return Err(IpamError::NoCidr);
        }
        let held: Vec<IpAddr> =
            self.list()?.into_iter().filter(|(_, owner)| owner == uid).map(|(address, _)| address).collect();
        let mut addresses = Vec::with_capacity(state.cidrs.len());
        for index in 0..state.cidrs.len() {
            let cidr = state.cidrs[index];
            let address = match held.iter().find(|address| cidr.contains(**address)) {
                Some(address) => *address,
                None => self.take_free(cidr, &mut state.next[index], uid)?,
            };
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Gives all addresses of `uid` back. Not having any is fine.
    pub fn release(&self, uid: &str) -> Result<(), IpamError> {
        let _state = self.lock();
        for (address, owner) in self.list()? {
            if owner == uid {
                self.remove(address)?;
            }
        }
        Ok(())
    }

    /// Gives back the addresses of every pod that is not in `live` and returns the uids that lost theirs.
    pub fn retain(&self, live: &HashSet<&str>) -> Result<Vec<String>, IpamError> {
        let _state = self.lock();
        let mut gone = Vec::new();
        for (address, owner) in self.list()? {
            if !live.contains(owner.as_str()) {
                self.remove(address)?;
                gone.push(owner);
            }
        }
        gone.sort();
        gone.dedup();
        Ok(gone)
    }

    /// Every allocated address with the uid that holds it, IPv4 first, in order.
    pub fn list(&self) -> Result<Vec<(IpAddr, String)>, IpamError> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(|source| file_error(&self.directory, source))? {
            let path = entry.map_err(|source| file_error(&self.directory, source))?.path();
            let Some(address) =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok())
            else {
                continue;
            };
            match fs::read_to_string(&path) {
                Ok(uid) => taken.push((address, uid)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(file_error(&path, source)),
            }
        }
        taken.sort();
        Ok(taken)
    }

    fn take_free(&self, cidr: Cidr, next: &mut u128, uid: &str) -> Result<IpAddr, IpamError> {
        let range = usable(cidr);
        let count = range.end.saturating_sub(range.start);
        for step in 0..count {
            let number = range.start + (next.saturating_sub(range.start) + step) % count;
            let Some(address) = cidr.nth(number) else { break };
            let path = self.directory.join(address.to_string());
            match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(uid.as_bytes()).map_err(|source| file_error(&path, source))?;
                    *next = number + 1;
                    return Ok(address);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(file_error(&path, source)),
            }
        }
        Err(IpamError::Exhausted(cidr))
    }

    fn remove(&self, address: IpAddr) -> Result<(), IpamError> {
        let path = self.directory.join(address.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(&path, error)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers within `cidr` that pods may get.
fn usable(cidr: Cidr) -> std::ops::Range<u128> {
    let size = cidr.size().unwrap_or(u128::MAX);
    // The last IPv4 address is the broadcast address; IPv6 has none.
    let end = if cidr.is_ipv4() { size.saturating_sub(1) } else { size };
    RESERVED..end.clamp(RESERVED, USABLE)
}

fn after_highest(cidr: Cidr, taken: &[IpAddr]) -> u128 {
    taken.iter().filter_map(|address| cidr.offset(*address)).max().map_or(RESERVED, |highest| highest + 1)
}

fn file_error(path: &Path, source: io::Error) -> IpamError {
    IpamError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn dual_stack(directory: &Path) -> Ipam {
        let ipam = Ipam::open(directory).unwrap();
        ipam.set_cidrs(&["10.244.1.0/29".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()]).unwrap();
        ipam
    }

    fn texts(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn a_pod_gets_one_address_of_each_family_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = dual_stack(dir.path());
        let first = ipam.allocate("uid-a").unwrap();
        assert_eq!(texts(&first), ["10.244.1.2", "fd00:10:244:1::2"]);
        assert_eq!(ipam.allocate("uid-a").unwrap(), first);
        assert_eq!(texts(&ipam.allocate("uid-b").unwrap()), ["10.244.1.3", "fd00:10:244:1::3"]);
    }

    #[test]
    fn allocations_survive_a_restart_and_addresses_are_reused_last() {
        let dir = tempfile::tempdir().unwrap();
        let before = dual_stack(dir.path()).allocate("uid-a").unwrap();
        let ipam = dual_stack(dir.path());
        assert_eq!(ipam.allocate("uid-a").unwrap(), before);
        ipam.release("uid-a").unwrap();
        let next = ipam.allocate("uid-b").unwrap();
        assert_eq!(texts(&next), ["10.244.1.3", "fd00:10:244:1::3"]);
    }

    #[test]
    fn a_full_cidr_is_named_and_works_again_after_a_release() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = dual_stack(dir.path());
        for pod in 0..5 {
            ipam.allocate(&format!("uid-{pod}")).unwrap();
        }
        let error = ipam.allocate("uid-5").unwrap_err();
        assert_eq!(error.to_string(), "no free address in podCIDR 10.244.1.0/29");
        ipam.release("uid-3").unwrap();
        assert_eq!(texts(&ipam.allocate("uid-5").unwrap())[0], "10.244.1.5");
    }

    #[test]
    fn recovery_frees_the_addresses_of_pods_that_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = dual_stack(dir.path());
        ipam.allocate("uid-a").unwrap();
        ipam.allocate("uid-b").unwrap();
        assert_eq!(ipam.retain(&HashSet::from(["uid-b"])).unwrap(), ["uid-a"]);
        assert_eq!(ipam.list().unwrap().len(), 2);
    }

    #[test]
    fn without_a_pod_cidr_there_is_no_address() {
        let dir = tempfile::tempdir().unwrap();
        let error = Ipam::open(dir.path()).unwrap().allocate("uid-a").unwrap_err();
        assert_eq!(error.to_string(), "the node has no podCIDR yet");
    }
}
