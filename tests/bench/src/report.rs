//! From samples to the numbers printed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::procfs::{self, Group};

/// What a scenario prints. Milliseconds and megabytes throughout.
#[derive(Serialize)]
pub struct Report {
    pub scenario: String,
    pub requests: usize,
    pub errors: usize,
    /// The first few errors in words.
    pub error_samples: Vec<String>,
    pub seconds: f64,
    pub rate: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU of each group divided by the number of requests.
    pub cpu_ms_per_request: BTreeMap<String, f64>,
    /// CPU of each group in percent of one core over the measured time.
    pub cpu_percent: BTreeMap<String, f64>,
    pub memory_mb: BTreeMap<String, f64>,
}

/// Takes the clock and the CPU counters at the start; `finish` takes them again.
pub struct Meter {
    groups: Vec<Group>,
    before: BTreeMap<String, f64>,
    start: Instant,
}

/// What one worker of a scenario saw.
#[derive(Default)]
pub struct Samples {
    pub times: Vec<Duration>,
    pub errors: Vec<String>,
}

impl Samples {
    pub fn take<T>(&mut self, since: Instant, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.times.push(since.elapsed());
                Some(value)
            }
            Err(error) => {
                self.errors.push(error.to_string());
                None
            }
        }
    }

    pub fn merge(&mut self, other: Samples) {
        self.times.extend(other.times);
        self.errors.extend(other.errors);
    }
}

impl Meter {
    pub fn start(groups: &[Group]) -> Result<Meter> {
        Ok(Meter { groups: groups.to_vec(), before: procfs::cpu_ms(groups)?, start: Instant::now() })
    }

    pub fn finish(self, scenario: &str, samples: Samples) -> Result<Report> {
        let seconds = self.start.elapsed().as_secs_f64();
        let after = procfs::cpu_ms(&self.groups)?;
        let memory_mb = procfs::memory_mb(&self.groups)?.into_iter().map(|(k, v)| (k, round(v))).collect();
        let mut ms: Vec<f64> = samples.times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        let used = |per: f64| -> BTreeMap<String, f64> {
            after.iter().map(|(k, v)| (k.clone(), round((v - self.before.get(k).unwrap_or(&0.0)) / per))).collect()
        };
        Ok(Report {
            scenario: scenario.to_owned(),
            requests: ms.len(),
            errors: samples.errors.len(),
            error_samples: samples.errors.into_iter().take(3).collect(),
            seconds: round(seconds),
            rate: round(ms.len() as f64 / seconds),
            p50_ms: quantile(&ms, 0.5),
            p95_ms: quantile(&ms, 0.95),
            p99_ms: quantile(&ms, 0.99),
            max_ms: quantile(&ms, 1.0),
            cpu_ms_per_request: used(ms.len().max(1) as f64),
            cpu_percent: used(seconds * 10.0),
            memory_mb,
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Nearest-rank quantile of sorted values, 0 if there are none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).wrapping_sub(1)).copied().map_or(0.0, round)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
