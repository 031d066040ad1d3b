//! Images in every node's containerd: from a root directory or an OCI tar, and those of the examples.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use oci_image::{Config, Source, full_name};

use crate::cluster::containerd;
use crate::cluster::plan::{self, Node, Plan};
use crate::flags::ImageSource;
use crate::{shell, tree};

/// `cargo xtask image load NAME=DIR|TAR`.
pub(crate) fn load(source: &ImageSource) -> Result<()> {
    let plan = Plan::read()?;
    let name = full_name(&source.name);
    let (tar, index) = if source.path.is_dir() {
        let tar = file(&source.name)?;
        oci_image::write(&name, Source::Root(&source.path), &Config::default(), &tar)?;
        (tar, None)
    } else if source.path.is_file() {
        // Named by both, the same name would stand for the index and for the image in it, and one of them would vanish.
        (source.path.clone(), (!names_itself(&source.path, &name)?).then_some(name.as_str()))
    } else {
        bail!("{} is neither a directory nor a tar file", source.path.display());
    };
    for node in plan.nodes() {
        import(&node, &tar, index)?;
    }
    println!("{name} is on {} nodes", plan.nodes().len());
    Ok(())
}

/// Builds the examples' images and loads them into every node.
pub(crate) fn load_examples(plan: &Plan) -> Result<()> {
    let roots = plan::directory().join("images/roots");
    let echo = roots.join("echo");
    install(&tree::echo(), &echo.join("echo"))?;
    let busybox = roots.join("busybox");
    install_busybox(&busybox)?;
    let images = [("echo", echo, vec!["/echo".to_owned()]), ("busybox", busybox, vec!["/bin/sh".to_owned()])];
    for (name, root, entrypoint) in images {
        let tar = file(name)?;
        let config = Config { entrypoint, ..Config::default() };
        oci_image::write(&full_name(name), Source::Root(&root), &config, &tar)?;
        for node in plan.nodes() {
            import(&node, &tar, None)?;
        }
    }
    Ok(())
}

fn file(name: &str) -> Result<PathBuf> {
    let directory = plan::directory().join("images");
    std::fs::create_dir_all(&directory)?;
    Ok(directory.join(format!("{}.tar", name.replace(['/', ':'], "_"))))
}

fn install(program: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().context("a path in a directory")?)?;
    std::fs::copy(program, to).with_context(|| format!("copy {}", program.display()))?;
    Ok(())
}

/// One binary and a link for each of its commands.
fn install_busybox(root: &Path) -> Result<()> {
    let binary = root.join("bin/busybox");
    install(Path::new("/bin/busybox"), &binary)?;
    for applet in shell::quiet(Command::new(&binary).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        let link = root.join("bin").join(applet);
        if !link.is_symlink() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    for directory in ["tmp", "etc", "root", "var/run"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    // A static C library must not look for name-service modules, which the image does not hold.
    std::fs::write(
        root.join("etc/nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nnobody:x:65534:\n")?;
    Ok(())
}

/// Whether one of the tar's indexes gives this name to its image.
fn names_itself(tar: &Path, name: &str) -> Result<bool> {
    let mut archive = tar::Archive::new(std::fs::File::open(tar)?);
    let quoted = format!("\"{name}\"");
    for entry in archive.entries().with_context(|| format!("read {}", tar.display()))? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path == Path::new("index.json") || path == Path::new("manifest.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            if text.contains(&quoted) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Imports `tar` into `node`'s containerd. Our own tars name their image; `index` names that of somebody else's.
fn import(node: &Node, tar: &Path, index: Option<&str>) -> Result<()> {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(containerd::socket()).args([
        "--namespace",
        &node.containerd_namespace(),
        "images",
        "import",
    ]);
    if let Some(name) = index {
        ctr.args(["--index-name", name]);
    }
    shell::quiet(ctr.arg(tar)).with_context(|| format!("import {} on {}", tar.display(), node.name))?;
    Ok(())
}
