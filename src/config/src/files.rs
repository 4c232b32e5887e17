//! Finding the files and laying them over each other as Synapse does.

use std::path::{Path, PathBuf};

use crate::read::Log;
use crate::yaml::{self, At, Map, Value};

/// The files that the given paths stand for: a folder stands for its `*.yaml`, sorted.
pub fn find(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file.is_file() && file.extension().is_some_and(|e| e == "yaml") {
                inside.push(file);
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Reads the files; top-level keys of later ones replace those of earlier ones.
pub(crate) fn read(log: &mut Log, paths: &[PathBuf]) -> Map {
    let mut merged = Map::default();
    let files = match find(paths) {
        Ok(files) => files,
        Err(e) => {
            log.error(None, "", format!("can't list the configuration folder: {e}"));
            return merged;
        }
    };
    if files.is_empty() {
        log.error(None, "", "no configuration file; allowed: -c FILE or -c FOLDER with *.yaml in it");
    }
    log.files = files.clone();
    for (index, file) in files.iter().enumerate() {
        let at = At { file: index as u16, line: 1 };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => {
                log.error(Some(at), "", format!("can't read the file: {e}"));
                continue;
            }
        };
        match yaml::parse(&text, index as u16) {
            Ok(node) => match node.value {
                Value::Map(map) => map.iter().for_each(|(key, node)| merged.set(key.to_owned(), node.clone())),
                _ => log.warn(Some(at), "", "empty, or no mapping of keys; ignored"),
            },
            Err(e) => log.error(Some(At { line: e.line, ..at }), "", format!("no valid YAML: {}", e.message)),
        }
    }
    merged
}

/// The folder of the last file, where keys are looked for.
pub(crate) fn folder(files: &[PathBuf]) -> PathBuf {
    let folder = files.last().and_then(|f| f.parent()).unwrap_or_else(|| Path::new(""));
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
}
