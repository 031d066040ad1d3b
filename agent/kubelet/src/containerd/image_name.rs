//! Image references as people write them and as containerd stores them. Pure. Grammar: the distribution project's
//! reference package.

/// The full name of a reference: registry, path and tag or digest. `None` when it is no reference.
pub fn normalize(reference: &str) -> Option<String> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !valid_digest(digest)) {
        return None;
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !valid_tag(tag)) {
        return None;
    }
    let (domain, name) = match path.split_once('/') {
        Some((domain, name)) if domain.contains(['.', ':']) || domain == "localhost" => {
            (domain, name.to_owned())
        }
        Some(_) => ("docker.io", path.to_owned()),
        None => ("docker.io", format!("library/{path}")),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    if !name.split('/').all(valid_component) || domain.is_empty() {
        return None;
    }
    let tag = match (tag, digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(_)) => String::new(),
        (None, None) => ":latest".to_owned(),
    };
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    Some(format!("{domain}/{name}{tag}{digest}"))
}

/// The policy of a container that names none: Always for `:latest`, else IfNotPresent. (The API server defaults the
/// field; this is for pods from disk.)
pub fn default_pull_policy(reference: &str) -> &'static str {
    let latest = normalize(reference).is_some_and(|name| name.ends_with(":latest"));
    if latest { "Always" } else { "IfNotPresent" }
}

/// The name without tag and digest.
pub fn repository(normalized: &str) -> &str {
    let name = normalized.split_once('@').map_or(normalized, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    }
}

fn valid_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !tag.is_empty()
        && tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower case letters and digits, joined by one dot, one or two underscores, or hyphens.
fn valid_component(component: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    ends && bytes.iter().all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-'))
        && !component.contains("..")
        && !component.contains("___")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_their_full_name() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let table = [
            ("echo".to_owned(), Some("docker.io/library/echo:latest".to_owned())),
            ("echo:1".into(), Some("docker.io/library/echo:1".into())),
            ("me/echo".into(), Some("docker.io/me/echo:latest".into())),
            ("docker.io/library/echo:latest".into(), Some("docker.io/library/echo:latest".into())),
            ("localhost:5000/a/b".into(), Some("localhost:5000/a/b:latest".into())),
            ("registry.k8s.io/pause:3.9".into(), Some("registry.k8s.io/pause:3.9".into())),
            (format!("echo@{digest}"), Some(format!("docker.io/library/echo@{digest}"))),
            ("Echo".into(), None),
            ("".into(), None),
            ("a//b".into(), None),
            ("echo:".into(), None),
            ("echo:not valid".into(), None),
            ("echo@sha256:12".into(), None),
        ];
        for (reference, expected) in table {
            assert_eq!(normalize(&reference), expected, "{reference:?}");
        }
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
    }

    #[test]
    fn only_latest_is_always_pulled() {
        assert_eq!(default_pull_policy("echo"), "Always");
        assert_eq!(default_pull_policy("echo:1"), "IfNotPresent");
    }
}
