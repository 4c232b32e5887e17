//! Keys Synapse 1.163.2 reads, and `worker_replication_tls_ca_path`. Others are warned about, with the nearest known one.

use crate::read::Section;
use crate::yaml::{Map, Node, Value};

/// One key path a line; `[]` is any entry of a list, `<name>` any key of a mapping.
const KEYS: &str = include_str!("known_keys.txt");

/// Whatever is below these is the admin's own choice or checked elsewhere.
const OPEN: &[&str] = &["database.args", "experimental_features", "extra_well_known_client_content"];

/// Warns about every key that nothing reads.
pub(crate) fn check(root: &Section<'_>) {
    let known: Vec<&str> = KEYS.lines().collect();
    walk(root, root.map, "", "", &known);
}

/// Walks a mapping. `pattern` is its path as written in the list, `path` the real one; both end in a dot if not empty.
fn walk(root: &Section<'_>, map: &Map, pattern: &str, path: &str, known: &[&str]) {
    let names: Vec<&str> = known.iter().filter_map(|k| k.strip_prefix(pattern)).map(first).collect();
    let names: Vec<&str> = names.into_iter().filter(|n| !n.is_empty()).collect();
    if names.is_empty() {
        return;
    }
    let any = names.contains(&"<name>");
    for (key, node) in map.iter() {
        let written = format!("{path}{key}");
        if names.contains(&key) || any {
            let below = format!("{pattern}{}", if names.contains(&key) { key } else { "<name>" });
            if !OPEN.contains(&below.as_str()) {
                descend(root, node, &below, &written, known);
            }
            continue;
        }
        match nearest(key, &names) {
            Some(near) => {
                root.log.warn(Some(node.at), &written, format_args!("unknown key, ignored; did you mean {near}?"))
            }
            None => root.log.warn(Some(node.at), &written, "unknown key, ignored"),
        }
    }
}

fn descend(root: &Section<'_>, node: &Node, pattern: &str, path: &str, known: &[&str]) {
    match &node.value {
        Value::Map(map) => walk(root, map, &format!("{pattern}."), &format!("{path}."), known),
        Value::List(list) => {
            for (i, item) in list.iter().enumerate() {
                if let Value::Map(map) = &item.value {
                    walk(root, map, &format!("{pattern}[]."), &format!("{path}[{i}]."), known);
                }
            }
        }
        _ => {}
    }
}

/// The first part of a path, without `[]`.
fn first(path: &str) -> &str {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    path.get(..end).unwrap_or(path)
}

/// The known name with the fewest edits, if they are few.
pub(crate) fn nearest<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    let most = (key.chars().count() / 3).clamp(1, 4);
    names.iter().map(|name| (edits(key, name), *name)).filter(|(n, _)| *n <= most).min().map(|(_, name)| name)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_not_strangers() {
        let names = ["enable_registration", "registration_shared_secret", "redis"];
        assert_eq!(nearest("enable_registraton", &names), Some("enable_registration"));
        assert_eq!(nearest("redis_", &names), Some("redis"));
        assert_eq!(nearest("uploads_path", &names), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
