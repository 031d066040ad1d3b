//! Running as root: a command that needs it starts itself again through sudo when it is not.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// Returns at once as root; otherwise replaces this process by the same command under sudo.
pub(crate) fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let this = std::env::current_exe().context("path of this program")?;
    // The user's toolchain is found through these; sudo would reset them.
    let keep = "--preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,RUSTUP_TOOLCHAIN,CARGO_TARGET_DIR,CARGO,CI";
    let error = Command::new("sudo").arg(keep).arg(this).args(std::env::args_os().skip(1)).exec();
    Err(error).context("this command needs root, and sudo could not be started")
}
