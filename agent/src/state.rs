//! What the agent remembers of its node's network between two lives: the podCIDRs, so that a restart adopts the tables at once, with or
//! without an API server.

use std::io::{self, Write};
use std::path::Path;

use network::Cidr;

/// File below the root directory.
const FILE: &str = "pod-cidrs";

/// The podCIDRs that were stored last; none if there are none or the file is damaged (the API has them).
pub fn load(root: &Path) -> Vec<Cidr> {
    let text = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    text.lines().map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
}

/// Stores the podCIDRs: a new file takes the old one's place when it is whole.
pub fn store(root: &Path, cidrs: &[Cidr]) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    let new = root.join(format!("{FILE}.new"));
    let mut file = std::fs::File::create(&new)?;
    for cidr in cidrs {
        writeln!(file, "{cidr}")?;
    }
    file.sync_all()?;
    std::fs::rename(new, root.join(FILE))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_stored_comes_back_and_damage_is_no_memory() {
        let dir = std::env::temp_dir().join(format!("beeline-agent-state-{}", std::process::id()));
        assert_eq!(load(&dir), []);
        let cidrs = ["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
        store(&dir, &cidrs).unwrap();
        assert_eq!(load(&dir), cidrs);
        std::fs::write(dir.join(FILE), "10.244.1.0/24\nx").unwrap();
        assert_eq!(load(&dir), []);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
