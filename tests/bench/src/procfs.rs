//! CPU time and memory of process trees, from /proc.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use crate::Result;

/// Some processes under one name.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub pids: Vec<u32>,
}

/// `NAME=PID[,PID…]`
pub fn parse_group(text: &str) -> std::result::Result<Group, String> {
    let (name, pids) = text.split_once('=').ok_or("expected NAME=PID,PID")?;
    let pids =
        pids.split(',').map(|p| p.parse().map_err(|e| format!("{p}: {e}"))).collect::<std::result::Result<_, _>>()?;
    Ok(Group { name: name.to_owned(), pids })
}

/// CPU milliseconds used so far by each group, children included (also those that ended and were waited for).
pub fn cpu_ms(groups: &[Group]) -> Result<BTreeMap<String, f64>> {
    let children = children()?;
    let tick = 1000.0 / ticks_per_second();
    Ok(groups
        .iter()
        .map(|group| {
            let ticks: u64 = tree(group, &children).into_iter().filter_map(ticks).sum();
            (group.name.clone(), ticks as f64 * tick)
        })
        .collect())
}

/// Resident memory in MB of each process of each group, shared pages counted in proportion where /proc says so.
pub fn memory_mb(groups: &[Group]) -> Result<BTreeMap<String, f64>> {
    let children = children()?;
    Ok(groups
        .iter()
        .map(|group| {
            let kb: f64 = tree(group, &children).into_iter().filter_map(memory_kb).sum();
            (group.name.clone(), kb / 1024.0)
        })
        .collect())
}

fn ticks_per_second() -> f64 {
    // USER_HZ is 100 on every Linux architecture Rust runs on.
    100.0
}

fn tree(group: &Group, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut all = group.pids.clone();
    let mut at = 0;
    while at < all.len() {
        all.extend(children.get(&all[at]).into_iter().flatten());
        at += 1;
    }
    all
}

fn children() -> Result<HashMap<u32, Vec<u32>>> {
    let mut map: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            map.entry(parent).or_default().push(pid);
        }
    }
    Ok(map)
}

/// Fields of /proc/PID/stat after the command name: index 0 is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.rfind(')')? + 2..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    // utime, stime, cutime, cstime
    (11..15).map(|i| fields.get(i)?.parse::<u64>().ok()).sum()
}

fn memory_kb(pid: u32) -> Option<f64> {
    let pick = |path: String, key: &str| -> Option<f64> {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find(|l| l.starts_with(key))?.split_whitespace().nth(1)?.parse().ok()
    };
    pick(format!("/proc/{pid}/smaps_rollup"), "Pss:").or_else(|| pick(format!("/proc/{pid}/status"), "VmRSS:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_needs_a_name_and_numbers() {
        let group = parse_group("postgres=12,13").expect("well-formed");
        assert_eq!((group.name.as_str(), group.pids), ("postgres", vec![12, 13]));
        assert!(parse_group("12").is_err());
        assert!(parse_group("a=x").is_err());
    }

    #[test]
    fn own_cpu_time_grows() {
        let me = [Group { name: "me".into(), pids: vec![std::process::id()] }];
        let before = cpu_ms(&me).expect("/proc")["me"];
        let end = std::time::Instant::now() + std::time::Duration::from_millis(60);
        while std::time::Instant::now() < end {
            std::hint::black_box(children().expect("/proc"));
        }
        assert!(cpu_ms(&me).expect("/proc")["me"] > before);
        assert!(memory_mb(&me).expect("/proc")["me"] > 0.1);
    }
}
