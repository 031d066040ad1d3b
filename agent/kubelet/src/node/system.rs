//! What the machine says of itself: names, versions, ids. Each answer is best effort: a machine without an id is
//! still a node.

use std::fs;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::oci::image::architecture;

/// The Kubernetes version whose API and behaviour this agent follows, as shown in VERSION columns.
pub const KUBELET_VERSION: &str = concat!("v1.35.0+beeline-", env!("CARGO_PKG_VERSION"));

/// nodeInfo of this machine.
pub fn info(containerd_version: &str) -> NodeSystemInfo {
    let uname = rustix::system::uname();
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("containerd://{containerd_version}"),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        // Deprecated and empty since 1.33.
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// PRETTY_NAME of an os-release file.
fn os_image(text: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or_else(|| "Linux".into(), |value| value.trim_matches('"').to_owned())
}

/// Bytes of the file system that holds `path`.
pub fn file_system_bytes(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map(|stat| stat.f_blocks * stat.f_frsize).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_os_is_named_as_it_names_itself() {
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_image(""), "Linux");
    }
}
